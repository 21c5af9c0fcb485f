//! Decoding with a KV cache between steps: a prompt at once, then symbol by symbol. The logits have
//! one digest, and the bits of a pass over the whole sequence, which is also the only segment.

use std::sync::mpsc::{Sender, channel};

use crate::harness::{
    BATCH, Caches, Goal, Graph, Places, ProgramId, Recompute, SYMBOLS, Said, StateUse, Study, Toy,
    Variables, WIDTH, add, attention, attention_cached, cache, causal, converse, cross_entropy,
    each, encode, integers, learns, likeliest, linear, one_digest, report, scales, state,
    successors, symbol, tower, weight,
};

const PROMPT: usize = 3;
const LENGTH: usize = 12;

fn toy(recompute: Recompute, spoken: Sender<Vec<f32>>) -> Toy {
    let mut v = Variables::new();
    let trunk = tower(&mut v, "trunk", weight);
    let qkv = weight(&mut v, "qkv", &[3 * WIDTH, WIDTH]);
    let head = weight(&mut v, "head", &[SYMBOLS, WIDTH]);
    let caches = ["keys", "values"].map(|n| state(&mut v, n, &[1, LENGTH, WIDTH], StateUse::Local));
    let mut study = Study::new(v, recompute);
    let model = |g: &mut Graph<'_>, rows: usize, cached: bool| {
        let [x, at, of] = integers(g, ["x", "at", "of"], rows);
        let [qkv, head] = [qkv, head].map(|id| g.parameter(id));
        let [keys, values] = caches.map(|id| g.state(id));
        let (places, kept) = (Places { positions: at, sequences: of }, Caches { keys, values });
        let h = encode(g, x, trunk)?;
        let qkv = linear(g, h, qkv, None)?;
        let seen = match cached {
            true => attention_cached(g, qkv, places, kept, cache(LENGTH))?,
            false => attention(g, qkv, of, causal(LENGTH))?,
        };
        let h = add(g, h, seen)?;
        linear(g, h, head, None)
    };
    let train = study.program("train", |g| {
        let logits = model(g, LENGTH * BATCH.micro, false)?;
        let ([y], [scale]) = (integers(g, ["y"], LENGTH * BATCH.micro), scales(g, ["scale"]));
        let loss = cross_entropy(g, logits, y, scale)?;
        Ok(Goal::Train { loss: report(g, loss) })
    });
    let programs = [(PROMPT, true), (1, true), (LENGTH, false)].map(|(rows, cached)| {
        study.forward("speak", |g| model(g, rows, cached).map(|logits| g.fetch("logits", logits)))
    });
    let talk = move |step| (step % 3 == 0).then(|| converse(generate(programs, spoken.clone())));
    let (step, data) = (move |_, _| each(BATCH, |_| train), successors(BATCH.global * LENGTH));
    Toy { talk: Box::new(talk), ..study.toy(BATCH, step, data) }
}

/// Always the likeliest symbol; at the end all symbols at once, which must give the same bits.
fn generate(programs: [ProgramId; 3], spoken: Sender<Vec<f32>>) -> impl FnMut(&[f32]) -> Said {
    let mut symbols: Vec<i32> = (0..PROMPT).map(|at| symbol(0, at) as i32).collect();
    let mut logits = Vec::new();
    move |made| {
        if logits.len() == LENGTH * SYMBOLS {
            assert_eq!(made, logits, "the cache changes the bits");
            spoken.send(logits.clone()).unwrap();
            return None;
        }
        logits.extend(made);
        symbols.extend(likeliest(made));
        let (program, rows) = match logits.len() / SYMBOLS {
            0 => (programs[0], 0..PROMPT),
            LENGTH => (programs[2], 0..LENGTH),
            done => (programs[1], done..done + 1),
        };
        let (at, of) = (rows.clone().map(|at| at as i32).collect(), vec![0; rows.len()]);
        Some((program, vec![("x", symbols[rows].to_vec()), ("at", at), ("of", of)]))
    }
}

#[test]
fn a_cache_gives_the_bits_of_the_whole_sequence() {
    let (sender, spoken) = channel();
    learns(&one_digest(6, |recompute| toy(recompute, sender.clone())), 0.8);
    let spoken: Vec<Vec<f32>> = spoken.try_iter().collect();
    assert_ne!(spoken[0], spoken[1], "after 3 steps and after 6");
    assert!(spoken.chunks(2).all(|two| two == &spoken[..2]), "ranks change what is said");
}
