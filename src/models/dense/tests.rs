//! Tests of the `dense` family: sizes of published models, and that what is traced is a decoder.

use octet_kernels::dtype::DType;
use octet_kernels::graph::{Goal, Parameter, ParameterId, Policy, Variables};
use octet_kernels::ops::linear::linear;

use super::{ActivationKind, DenseConfig, NormKind, Positions};
use crate::config::Config;
use crate::models::testing::{Bench, Field};
use crate::models::{CAUSAL, Extras, Family, ModelSize, Scope, Sight, TokenBatch, WriterRows};

fn gpt2() -> DenseConfig {
    DenseConfig {
        layers: 12,
        heads: 12,
        width: 768,
        norm: NormKind::LayerNorm,
        positions: Positions::Learned,
        activation: ActivationKind::Gelu,
        bias: true,
        ..DenseConfig::default()
    }
}

fn llama_8b() -> DenseConfig {
    DenseConfig {
        layers: 32,
        heads: 32,
        kv_heads: Some(8),
        width: 4096,
        feed_forward: Some(14336),
        tied: false,
        ..DenseConfig::default()
    }
}

/// Parameters in all, and those in matrix products.
fn sizes(config: &DenseConfig, vocabulary: usize, max_positions: usize) -> (usize, usize) {
    let mut variables = Variables::new();
    let model = config
        .build(ModelSize { vocabulary, max_positions }, &mut Scope::new(&mut variables))
        .unwrap();
    let all = variables.parameters().iter().map(|p| p.elements()).sum();
    (all, model.matrix_parameters())
}

#[test]
fn published_models_have_their_published_sizes() {
    // Hugging Face: gpt2, meta-llama/Llama-3.1-8B, Qwen/Qwen2.5-1.5B, Qwen/Qwen3-0.6B.
    let (all, matrices) = sizes(&gpt2(), 50257, 1024);
    assert_eq!(all, 124_439_808);
    // Everything but positions, norms and biases; the embedding counts as the head.
    assert_eq!(matrices, all - 1024 * 768 - 25 * 2 * 768 - 12 * 9 * 768);
    let (all, matrices) = sizes(&llama_8b(), 128_256, 8192);
    assert_eq!(all, 8_030_261_248);
    assert_eq!(matrices, all - 128_256 * 4096 - 65 * 4096);
    let qwen2 = DenseConfig {
        layers: 28,
        heads: 12,
        kv_heads: Some(2),
        width: 1536,
        feed_forward: Some(8960),
        qkv_bias: true,
        ..DenseConfig::default()
    };
    assert_eq!(sizes(&qwen2, 151_936, 1024).0, 1_543_714_304);
    let qwen3 = DenseConfig {
        layers: 28,
        heads: 16,
        kv_heads: Some(8),
        width: 1024,
        head_dim: Some(128),
        feed_forward: Some(3072),
        qk_norm: true,
        ..DenseConfig::default()
    };
    assert_eq!(sizes(&qwen3, 151_936, 1024).0, 596_049_920);
}

#[test]
fn names_and_first_values_are_fixed() {
    let mut variables = Variables::new();
    let config = DenseConfig {
        qk_norm: true,
        qkv_bias: true,
        tied: false,
        layers: 2,
        ..DenseConfig::default()
    };
    config
        .build(ModelSize { vocabulary: 9, max_positions: 4 }, &mut Scope::new(&mut variables))
        .unwrap();
    let names: Vec<&str> = variables.parameters().iter().map(|p| p.name.as_str()).collect();
    assert_eq!(
        names[..11],
        [
            "embedding.weight",
            "blocks.0.attention_norm.weight",
            "blocks.0.attention.qkv.weight",
            "blocks.0.attention.qkv.bias",
            "blocks.0.attention.q_norm.weight",
            "blocks.0.attention.k_norm.weight",
            "blocks.0.attention.output.weight",
            "blocks.0.feed_forward_norm.weight",
            "blocks.0.feed_forward.gate_up.weight",
            "blocks.0.feed_forward.down.weight",
            "blocks.1.attention_norm.weight",
        ]
    );
    assert_eq!(names[names.len() - 2..], ["final_norm.weight", "head.weight"]);
    for p in variables.parameters() {
        assert_eq!(p.decay, p.shape.len() == 2, "{}", p.name);
        let residual = p.name.ends_with("output.weight") || p.name.ends_with("down.weight");
        let wanted = match p.shape.len() {
            2 if residual => octet_kernels::graph::Init::Normal { std: 0.01 },
            2 => octet_kernels::graph::Init::Normal { std: 0.02 },
            _ if p.name.ends_with("bias") => octet_kernels::graph::Init::Constant(0.0),
            _ => octet_kernels::graph::Init::Constant(1.0),
        };
        assert_eq!(p.init, wanted, "{}", p.name);
    }
}

#[test]
fn flops_are_those_of_the_mfu_definition() {
    let config = gpt2();
    let mut variables = Variables::new();
    let size = ModelSize { vocabulary: 50304, max_positions: 1024 };
    let model = config.build(size, &mut Scope::new(&mut variables)).unwrap();
    let matrices = 12 * 12 * 768 * 768 + 50304 * 768;
    assert_eq!(model.flops_per_token(1024, CAUSAL), (6 * matrices + 6 * 12 * 768 * 1024) as f64);
}

/// Logits of one sequence of tokens, all in one document unless segments say otherwise.
fn logits(config: &DenseConfig, tokens: &[i32], positions: &[i32], segments: &[i32]) -> Vec<f32> {
    let mut variables = Variables::new();
    let length = tokens.len();
    let size = ModelSize { vocabulary: 11, max_positions: 16 };
    let model = config.build(size, &mut Scope::new(&mut variables)).unwrap();
    let mut bench = Bench::new(variables);
    let program = bench.compile(Policy::default(), |g| {
        let mut input = |name| g.input(name, &[length], DType::I32);
        let batch = TokenBatch {
            tokens: input("tokens"),
            positions: input("positions"),
            segments: input("segments"),
            types: None,
            sequence_length: length,
            sight: Sight::Causal,
            training: false,
        };
        let hidden = model.hidden(g, &batch, &mut Extras::default()).unwrap();
        let head = model.head(g, hidden).unwrap();
        let logits = linear(g, head.rows, head.weight, head.bias).unwrap();
        g.fetch("logits", logits);
        Goal::Forward
    });
    let fields = [("tokens", tokens), ("positions", positions), ("segments", segments)];
    let fields = fields.map(|(name, values)| (name, Field::Integers(values.to_vec())));
    bench.run(&program, &fields).remove("logits").unwrap()
}

fn small(config: DenseConfig) -> DenseConfig {
    DenseConfig { layers: 2, heads: 4, width: 32, init_std: Some(0.3), ..config }
}

fn small_models() -> [DenseConfig; 3] {
    let llama =
        DenseConfig { kv_heads: Some(2), qk_norm: true, tied: false, ..DenseConfig::default() };
    let windowed = DenseConfig { window: Some(3), full_attention_every: Some(2), ..llama.clone() };
    [small(gpt2()), small(llama), small(windowed)]
}

#[test]
fn a_token_sees_only_what_came_before_in_its_document() {
    for config in small_models() {
        let (tokens, positions) = ([3, 1, 4, 1, 5, 9], [0, 1, 2, 0, 1, 2]);
        let segments = [0, 0, 0, 1, 1, 1];
        let base = logits(&config, &tokens, &positions, &segments);
        // Another last token changes its own row only, another first one its own document only.
        let last = logits(&config, &[3, 1, 4, 1, 5, 2], &positions, &segments);
        assert_eq!(base[..5 * 11], last[..5 * 11]);
        assert_ne!(base[5 * 11..], last[5 * 11..]);
        let first = logits(&config, &[2, 1, 4, 1, 5, 9], &positions, &segments);
        assert_eq!(base[3 * 11..], first[3 * 11..]);
        for row in 0..3 {
            assert_ne!(base[row * 11..][..11], first[row * 11..][..11], "row {row}");
        }
        // A document gives what it gives alone.
        let alone = logits(&config, &[1, 5, 9], &[0, 1, 2], &[0, 0, 0]);
        for (packed, alone) in base[3 * 11..].iter().zip(&alone) {
            assert!((packed - alone).abs() < 1e-5, "{packed} {alone}");
        }
    }
}

#[test]
fn positions_matter() {
    for config in small_models() {
        let base = logits(&config, &[3, 3, 3], &[0, 1, 2], &[0, 0, 0]);
        let other = logits(&config, &[3, 3, 3], &[0, 2, 1], &[0, 0, 0]);
        // The first token attends to itself alone: its rotation cannot matter.
        assert_eq!(base[..11], other[..11]);
        assert_ne!(base[11..], other[11..]);
    }
}

#[test]
fn decoding_gives_the_bits_of_the_whole_sequence() {
    let (a, b) = ([3, 1, 4, 1, 5, 9], [2, 7, 1, 8, 2, 8]);
    for config in small_models() {
        let whole = |tokens: &[i32]| logits(&config, tokens, &[0, 1, 2, 3, 4, 5], &[0; 6]);
        let expected = [whole(&a), whole(&b)];
        let mut variables = Variables::new();
        let size = ModelSize { vocabulary: 11, max_positions: 16 };
        let model = config.build(size, &mut Scope::new(&mut variables)).unwrap();
        let writer = model.writer().unwrap();
        let caches = writer.caches(&mut Scope::new(&mut variables), 2, 9);
        let mut bench = Bench::new(variables);
        let program = bench.compile(Policy::default(), |g| {
            let names = ["tokens", "positions", "sequences", "picked"];
            let inputs = names.map(|name| g.input(name, &[5], DType::I32));
            let live = ["rows", "answers"].map(|name| g.input(name, &[], DType::I32));
            let [tokens, positions, sequences, picked] = [0, 1, 2, 3].map(|i| {
                let live = if i < 3 { live[0] } else { live[1] };
                g.with_live(inputs[i], live)
            });
            let rows = WriterRows { tokens, positions, sequences, picked };
            let logits = writer.decode(g, &caches, &rows).unwrap();
            g.fetch("logits", logits);
            Goal::Forward
        });
        // Rows are (sequence, position); of each the logits are wanted.
        let mut run = |rows: &[(usize, usize)]| {
            let column = |of: &dyn Fn(usize) -> i32| {
                let padding = std::iter::repeat_n(-1, 5 - rows.len());
                Field::Integers((0..rows.len()).map(of).chain(padding).collect())
            };
            let fields = [
                ("tokens", column(&|row| [a, b][rows[row].0][rows[row].1])),
                ("positions", column(&|row| rows[row].1 as i32)),
                ("sequences", column(&|row| rows[row].0 as i32)),
                ("picked", column(&|row| row as i32)),
                ("rows", Field::Integers(vec![rows.len() as i32])),
                ("answers", Field::Integers(vec![rows.len() as i32])),
            ];
            let got = bench.run(&program, &fields).remove("logits").unwrap();
            for (row, &(sequence, at)) in rows.iter().enumerate() {
                let expected = &expected[sequence][at * 11..][..11];
                assert_eq!(&got[row * 11..][..11], expected, "{sequence} {at}");
            }
        };
        // Prompts of three and two tokens, then one of each, then one alone.
        run(&[(0, 0), (0, 1), (0, 2), (1, 0), (1, 1)]);
        for at in 3..6 {
            run(&[(0, at), (1, at - 1)]);
        }
        run(&[(1, 5)]);
    }
}

#[test]
fn a_window_hides_what_is_far_and_every_nth_block_sees_all() {
    let windowed = |layers, every| DenseConfig {
        window: Some(2),
        full_attention_every: every,
        layers,
        ..small_models()[1].clone()
    };
    let run = |config: &DenseConfig, first: i32| {
        logits(config, &[first, 1, 4, 1, 5, 9], &[0, 1, 2, 3, 4, 5], &[0; 6])
    };
    // Rows that another first token changes.
    let changed = |config: &DenseConfig| -> Vec<bool> {
        let (a, b) = (run(config, 3), run(config, 2));
        (0..6).map(|row| a[row * 11..][..11] != b[row * 11..][..11]).collect()
    };
    let reach = |rows: usize| (0..6).map(|row| row < rows).collect::<Vec<_>>();
    assert_eq!(changed(&windowed(1, None)), reach(2));
    assert_eq!(changed(&windowed(2, None)), reach(3), "a window in each block");
    assert_eq!(changed(&windowed(2, Some(2))), reach(6), "the second block sees all");
    assert_eq!(changed(&windowed(2, Some(3))), reach(3), "the third would");
    // A window of the whole sequence is none.
    let whole = DenseConfig { window: Some(6), ..small_models()[1].clone() };
    assert_eq!(run(&whole, 3), run(&small_models()[1], 3));
}

#[test]
fn a_window_counts_only_what_is_seen() {
    let flops = |config: &DenseConfig, length| {
        let mut variables = Variables::new();
        let size = ModelSize { vocabulary: 50304, max_positions: 1024 };
        config.build(size, &mut Scope::new(&mut variables)).unwrap().flops_per_token(length, CAUSAL)
    };
    let windowed = DenseConfig { window: Some(256), ..gpt2() };
    assert_eq!(flops(&windowed, 256), flops(&gpt2(), 256));
    assert_eq!(flops(&windowed, 128), flops(&gpt2(), 128));
    // 12 blocks, 6 FLOPs: 2 · 256 - 256² / 1024 keys in the place of 1024.
    let (saved, per_key) = (1024.0 - (512.0 - 64.0), 6.0 * 768.0);
    assert_eq!(flops(&gpt2(), 1024) - flops(&windowed, 1024), 12.0 * per_key * saved);
    let mixed = DenseConfig { full_attention_every: Some(6), ..windowed };
    assert_eq!(flops(&gpt2(), 1024) - flops(&mixed, 1024), 10.0 * per_key * saved);
}

#[test]
fn initialisations_have_their_standard_deviations() {
    // Of the embedding [11, 48], qkv [144, 48], the output layer [48, 48] and down [48, 128].
    let root = |x: f64| x.sqrt();
    let small = root(2.0 / 240.0);
    for (name, expected) in [
        ("normal", [0.02; 4]),
        ("gpt2", [0.02, 0.02, 0.01, 0.01]),
        // Three standard deviations keep 98.66 % of the standard deviation.
        ("truncated_normal", [0.02, 0.02, 0.01, 0.01].map(|std| 0.9866 * std)),
        ("xavier", [59.0, 192.0, 96.0, 176.0].map(|fans| root(2.0 / fans))),
        ("glorot", [59.0, 192.0, 96.0, 176.0].map(|fans| root(2.0 / fans))),
        ("kaiming", [48.0, 48.0, 48.0, 128.0].map(|inputs| root(2.0 / inputs))),
        ("he", [48.0, 48.0, 48.0, 128.0].map(|inputs| root(2.0 / inputs))),
        ("small", [small; 4]),
    ] {
        let text = format!("layers = 2\nwidth = 48\ninitialisation = \"{name}\"\n");
        let config: DenseConfig = toml::from_str(&text).unwrap();
        let mut variables = Variables::new();
        let size = ModelSize { vocabulary: 11, max_positions: 4 };
        config.build(size, &mut Scope::new(&mut variables)).unwrap();
        for (part, expected) in [
            "embedding",
            "blocks.0.attention.qkv",
            "blocks.1.attention.output",
            "blocks.1.feed_forward.down",
        ]
        .iter()
        .zip(expected)
        {
            let named = |p: &Parameter| p.name == format!("{part}.weight");
            let at = variables.parameters().iter().position(named).unwrap();
            let values = variables.first_values(ParameterId(at), 5);
            let mean_square =
                values.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>() / values.len() as f64;
            let ratio = mean_square.sqrt() / expected;
            // 528 values at least: the error of their standard deviation is 3 %.
            assert!((ratio - 1.0).abs() < 0.1, "{name} {part}: {ratio}");
            let largest = values.iter().fold(0f32, |most, x| most.max(x.abs()));
            if name == "truncated_normal" {
                assert!(f64::from(largest) <= 3.0 * expected / 0.9866 * 1.000_001, "{part}");
            }
        }
    }
}

#[test]
fn embeddings_may_have_a_dropout_of_their_own() {
    let dropouts = |keys: &str| {
        let config: DenseConfig =
            toml::from_str(&format!("layers = 2\nwidth = 8\n{keys}")).unwrap();
        let mut variables = Variables::new();
        let size = ModelSize { vocabulary: 11, max_positions: 4 };
        let model = config.build(size, &mut Scope::new(&mut variables)).unwrap();
        let program = Bench::new(variables).compile(Policy::default(), |g| {
            let mut input = |name| g.input(name, &[4], DType::I32);
            let batch = TokenBatch {
                tokens: input("tokens"),
                positions: input("positions"),
                segments: input("segments"),
                types: None,
                sequence_length: 4,
                sight: Sight::Causal,
                training: true,
            };
            let hidden = model.hidden(g, &batch, &mut Extras::default()).unwrap();
            g.fetch("hidden", hidden);
            Goal::Forward
        });
        program.costs().filter(|node| node.op == "dropout").count()
    };
    assert_eq!(dropouts(""), 0);
    assert_eq!(dropouts("dropout = 0.1"), 5);
    assert_eq!(dropouts("dropout = 0.1\nembedding_dropout = 0"), 4);
    assert_eq!(dropouts("embedding_dropout = 0.1"), 1);
}

#[test]
fn windows_and_first_values_are_checked() {
    for (keys, says) in [
        ("window = 0", "model.window: expected at least 1, got 0"),
        ("full_attention_every = 2", "model.full_attention_every: expected model.window beside"),
        (
            "window = 4\nfull_attention_every = 1",
            "full_attention_every: expected at least 2, got 1",
        ),
        ("embedding_dropout = 1", "model.embedding_dropout: expected at least 0 and below 1"),
        ("init_std = 0", "model.init_std: expected a number above 0, got 0"),
        ("init_std = 0.1\ninitialisation = \"he\"", "model.init_std: expected model.initialisa"),
        ("initialisation = \"orthogonal\"", "\"gpt2\""),
    ] {
        let path = std::path::Path::new("a.toml");
        let refused = Config::parse(&format!("[model]\n{keys}\n"), path, &[]).unwrap_err();
        let refused = refused.to_string();
        assert!(refused.starts_with("a.toml:") && refused.contains(says), "{refused}");
    }
    let digest = |keys: &str| {
        let path = std::path::Path::new("a.toml");
        Config::parse(&format!("[model]\n{keys}\n"), path, &[]).unwrap().digest()
    };
    let all = ["", "window = 4", "window = 4\nfull_attention_every = 2", "initialisation = \"he\""];
    let mut digests: Vec<String> = all.iter().map(|keys| digest(keys)).collect();
    digests.push(digest("embedding_dropout = 0.5"));
    digests.dedup();
    assert_eq!(digests.len(), 5);
    assert_eq!(digest("initialisation = \"he\""), digest("initialisation = \"kaiming\""));
    assert_eq!(digest(""), digest("init_std = 0.02"));
}
