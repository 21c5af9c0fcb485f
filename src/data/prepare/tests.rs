//! Tests of the whole preparation: splits, identity, the cache and its faults.

use std::fs;
use std::ops::{ControlFlow, Deref};
use std::path::{Path, PathBuf};

use super::learn::{SAMPLE_BLOCK, sample};
use super::{Prepared, PreparedSource, Progress, Stage, Watch, prepare};
use crate::data::clean::CleanChain;
use crate::data::tokenize::tests::shared;
use crate::data::{
    Corpus, DataConfig, DataError, Report, SourceConfig, TextSpec, TokenStream, Tokenizer,
};

/// A folder of texts and a cache beside it.
struct Place {
    folder: tempfile::TempDir,
}

impl Place {
    fn new(files: &[(&str, &str)]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("text")).unwrap();
        for (name, text) in files {
            fs::write(folder.path().join("text").join(name), text).unwrap();
        }
        Self { folder }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn config(&self, tokenizer: &str) -> DataConfig {
        DataConfig {
            text: TextSpec::from(self.path("text").to_str().unwrap()),
            tokenizer: tokenizer.to_owned(),
            cache: Some(self.path("made/cache")),
            ..DataConfig::default()
        }
    }
}

/// Prepared data of one source.
struct One(Prepared);

impl Deref for One {
    type Target = PreparedSource;

    fn deref(&self) -> &PreparedSource {
        &self.0.sources[0]
    }
}

fn run(config: &DataConfig) -> Result<One, DataError> {
    prepare(config, None, &mut |_| ControlFlow::Continue(())).map(One)
}

fn tokens(paths: &[PathBuf]) -> Vec<u32> {
    let stream = TokenStream::open(paths).unwrap();
    let mut tokens = vec![0; stream.len() as usize];
    stream.read(0, &mut tokens).unwrap();
    tokens
}

fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap();
    let mut names: Vec<String> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn two_documents_as_bytes_by_hand() {
    let place = Place::new(&[("a.txt", "abcdef"), ("b.txt", "gh\u{e9}"), ("c.txt", "")]);
    let config = DataConfig { validation_fraction: 0.3, ..place.config("bytes") };
    let prepared = run(&config).unwrap();
    let all = [97, 98, 99, 100, 101, 102, 256, 103, 104, 0xc3, 0xa9, 256];
    // floor(0.7 x 12) = 8.
    assert_eq!(tokens(&prepared.train), all[..8]);
    assert_eq!(tokens(&prepared.validation), all[8..]);
    assert_eq!((prepared.counts.train_tokens, prepared.counts.validation_tokens), (8, 4));
    assert_eq!((prepared.counts.train_bytes, prepared.counts.validation_bytes), (7, 3));
    assert_eq!(
        (prepared.counts.documents, prepared.counts.files, prepared.counts.skipped.empty),
        (2, 2, 1)
    );
    assert!((prepared.counts.bytes_per_token() - 0.75).abs() < 1e-12);
    let train = TokenStream::open(&prepared.train).unwrap();
    let validation = TokenStream::open(&prepared.validation).unwrap();
    assert_eq!((train.documents(), validation.documents()), (2, 0));
    let expected = [
        "octet_tokenizer.json",
        "prepared.json",
        "report.html",
        "report.json",
        "tokenizer.json",
        "train-00000.oct",
        "validation-00000.oct",
    ];
    assert_eq!(names(&prepared.0.folder), expected);
}

#[test]
fn every_tokenizer_splits_the_text_without_loss() {
    let texts = ["one fish, two fish.\n".repeat(40), "r\u{e9}d fish\n\nblue 😀 fish".repeat(30)];
    let place = Place::new(&[("a.txt", &texts[0]), ("b.md", &texts[1])]);
    for tokenizer in ["bytes", "characters", "bpe:300"] {
        for fraction in [0.0, 0.1, 0.5, 0.77] {
            let config = DataConfig {
                validation_fraction: fraction,
                cache: Some(place.path(&format!("{tokenizer}-{fraction}"))),
                ..place.config(tokenizer)
            };
            let prepared = run(&config).unwrap();
            let mut all = tokens(&prepared.train);
            all.extend(tokens(&prepared.validation));
            let end = prepared.0.tokenizer.end_of_document().unwrap();
            let documents: Vec<String> = all
                .split(|&token| token == end)
                .map(|document| prepared.0.tokenizer.decode(document))
                .collect();
            assert_eq!(documents, [texts[0].as_str(), &texts[1], ""]);
            assert_eq!(prepared.counts.train_tokens, ((1.0 - fraction) * all.len() as f64) as u64);
            let bytes = texts.iter().map(String::len).sum::<usize>() as u64;
            assert_eq!(prepared.counts.train_bytes + prepared.counts.validation_bytes, bytes);
            let tail = prepared.0.tokenizer.decode_bytes(&tokens(&prepared.validation));
            assert_eq!(tail.len() as u64, prepared.counts.validation_bytes);
            assert_eq!(prepared.validation.is_empty(), fraction == 0.0);
        }
    }
}

#[test]
fn shakespeare_is_cut_like_nanogpt_cuts_it() {
    let Some(path) = shared("text/tinyshakespeare.txt") else { return };
    let place = Place::new(&[]);
    let config =
        DataConfig { text: TextSpec::from(path.to_str().unwrap()), ..place.config("characters") };
    let prepared = run(&config).unwrap();
    assert_eq!(prepared.0.tokenizer.vocabulary(), 65);
    assert_eq!(prepared.0.tokenizer.end_of_document(), None);
    assert_eq!(
        (prepared.counts.train_tokens, prepared.counts.validation_tokens),
        (1_003_854, 111_540)
    );
    assert!((prepared.counts.bytes_per_token() - 1.0).abs() < 1e-12);
}

#[test]
fn the_second_time_nothing_is_done() {
    let place = Place::new(&[("a.txt", "some text to prepare")]);
    let config = place.config("characters");
    let first = run(&config).unwrap();
    assert!(!first.0.reused);
    let mut stages = Vec::new();
    let second = prepare(&config, None, &mut |Progress { stage, .. }| {
        stages.push(stage);
        ControlFlow::Continue(())
    });
    let second = One(second.unwrap());
    assert!(second.0.reused && stages.iter().all(|&stage| stage == Stage::Scan));
    assert_eq!(first.0.identity, second.0.identity);
    assert_eq!(first.train, second.train);
    assert_eq!(second.0.tokenizer.vocabulary(), first.0.tokenizer.vocabulary());
    // A moved corpus is the same corpus.
    fs::rename(place.path("text"), place.path("moved")).unwrap();
    let moved =
        DataConfig { text: TextSpec::from(place.path("moved").to_str().unwrap()), ..config };
    assert!(run(&moved).unwrap().0.reused);
}

#[test]
fn identity_follows_text_tokenizer_and_split() {
    let place = Place::new(&[("a.txt", "some text to prepare")]);
    let identity = |config: DataConfig, cache: &str| {
        run(&DataConfig { cache: Some(place.path(cache)), ..config }).unwrap().0.identity
    };
    let bytes = || place.config("bytes");
    let first = identity(bytes(), "1");
    assert_eq!(first, identity(bytes(), "2"));
    assert_ne!(first, identity(place.config("bpe:300"), "3"));
    assert_ne!(first, identity(DataConfig { validation_fraction: 0.5, ..bytes() }, "4"));
    fs::write(place.path("text/a.txt"), "some text to prepars").unwrap();
    assert_ne!(first, identity(bytes(), "5"));
}

#[test]
fn a_half_written_cache_is_made_again() {
    let place = Place::new(&[("a.txt", "some text to prepare")]);
    let config = place.config("bytes");
    let first = run(&config).unwrap();
    let damage: [&dyn Fn(); 6] = [
        &|| fs::remove_file(first.0.folder.join("prepared.json")).unwrap(),
        &|| fs::write(first.0.folder.join("prepared.json"), "{\"format\": 1").unwrap(),
        &|| fs::remove_file(&first.validation[0]).unwrap(),
        &|| fs::write(&first.train[0], &fs::read(&first.train[0]).unwrap()[..4100]).unwrap(),
        &|| fs::remove_file(first.0.folder.join("octet_tokenizer.json")).unwrap(),
        &|| fs::copy(&first.validation[0], &first.train[0]).map(|_| ()).unwrap(),
    ];
    for (number, damage) in damage.iter().enumerate() {
        damage();
        let again = run(&config).unwrap();
        assert!(!again.0.reused, "damage {number}");
        assert_eq!(again.0.identity, first.0.identity);
        assert!(run(&config).unwrap().0.reused);
        assert_eq!(names(&first.0.folder).len(), 7);
    }
}

#[test]
fn a_cache_of_something_else_is_left_alone() {
    let place = Place::new(&[("a.txt", "some text to prepare")]);
    let first = run(&place.config("bytes")).unwrap();
    let error = run(&place.config("characters")).err().unwrap();
    assert!(matches!(error, DataError::CacheInUse { .. }) && error.is_user_error());
    assert!(error.to_string().starts_with("data.cache: "), "{error}");
    assert!(run(&place.config("bytes")).unwrap().0.reused);
    assert_eq!(tokens(&first.train).len(), 18);
}

#[test]
fn a_small_vocabulary_is_refused_before_anything_is_written() {
    let place = Place::new(&[("a.txt", "some text to prepare")]);
    let config = place.config("bytes");
    let refused = |config: &DataConfig| {
        prepare(config, Some(256), &mut |_| ControlFlow::Continue(())).err().unwrap()
    };
    let error = refused(&config);
    assert!(error.is_user_error());
    assert_eq!(
        error.to_string(),
        "data.tokenizer: \"bytes\" has 257 tokens, but model.vocabulary is 256; \
         set model.vocabulary to at least 257"
    );
    assert!(!place.path("made").exists());
    prepare(&config, Some(257), &mut |_| ControlFlow::Continue(())).unwrap();
    assert!(matches!(refused(&config), DataError::VocabularyTooSmall { .. }));
}

#[test]
fn a_mistake_of_the_user_leaves_nothing_behind() {
    let place = Place::new(&[("a.jsonl", "{\"text\": \"fine\"}\n{\"text\": 1}\n")]);
    let error = run(&place.config("bytes")).err().unwrap();
    assert!(matches!(error, DataError::BadRecords { bad: 1, records: 2, .. }), "{error}");
    assert!(!place.path("made").exists());
    fs::write(place.path("text/a.jsonl"), "{\"text\": \"\"}\n\n").unwrap();
    let error = run(&place.config("bytes")).err().unwrap();
    assert!(error.to_string().contains("1 empty"), "{error}");
    assert!(!place.path("made").exists());
    // A folder that was there before stays.
    fs::create_dir(place.path("made")).unwrap();
    run(&place.config("bytes")).err().unwrap();
    assert_eq!(names(&place.path("made")).len(), 0);
}

#[test]
fn a_tokenizer_file_is_named_by_its_contents() {
    let place = Place::new(&[("a.txt", &"the same words, the same tokens. ".repeat(9))]);
    let saved = place.path("tokenizer");
    fs::create_dir(&saved).unwrap();
    let sample = ["the same words, the same tokens. ".repeat(9)];
    Tokenizer::train_bpe(300, &sample, None, &mut || Ok(())).unwrap().save(&saved).unwrap();
    let first = run(&place.config(saved.to_str().unwrap())).unwrap();
    fs::rename(&saved, place.path("elsewhere")).unwrap();
    let file = place.path("elsewhere/tokenizer.json");
    let second = run(&place.config(file.to_str().unwrap())).unwrap();
    assert!(second.0.reused);
    assert_eq!(first.0.identity, second.0.identity);
    let error = run(&place.config("./no/tokenizer.json")).err().unwrap();
    assert!(error.is_user_error() && error.to_string().contains("no such file"), "{error}");
}

#[test]
fn large_corpora_are_sampled_evenly_and_repeatably() {
    let text = "abcdefgh".repeat(SAMPLE_BLOCK * 4);
    let place = Place::new(&[("a.txt", &text), ("b.txt", &text)]);
    let source = TextSpec::from(place.path("text").to_str().unwrap());
    let corpus = Corpus::scan(&source.into(), &mut |_| Ok(())).unwrap();
    let one = std::slice::from_ref(&corpus);
    let take = |bytes| sample(one, bytes, &mut Watch(&mut |_| ControlFlow::Continue(()))).unwrap();
    let quarter = take(corpus.bytes / 4);
    let bytes: usize = quarter.iter().map(String::len).sum();
    let share = bytes as f64 / corpus.bytes as f64;
    assert!((0.1..0.4).contains(&share), "{share}");
    assert_eq!(quarter, take(corpus.bytes / 4));
    assert_eq!(take(corpus.bytes).concat().len() as u64, corpus.bytes);
}

#[test]
fn progress_reaches_its_end_in_every_stage() {
    let place = Place::new(&[("a.txt", &"some text ".repeat(100)), ("b.txt", "more")]);
    let mut last = std::collections::BTreeMap::new();
    let config = place.config("bpe:300");
    prepare(&config, None, &mut |now| {
        last.insert(format!("{:?}", now.stage), (now.done, now.total));
        ControlFlow::Continue(())
    })
    .unwrap();
    let all = tokens(&run(&config).unwrap().train).len() as u64;
    assert_eq!(last["Scan"], (1004, 0));
    assert_eq!(last["Tokenizer"], (1004, 1004));
    assert_eq!(last["Encode"], (1004, 1004));
    assert!(last["Write"].0 == last["Write"].1 && last["Write"].0 > all);
}

#[test]
fn sources_are_prepared_with_one_tokenizer_and_named() {
    let place = Place::new(&[("a.txt", &"aaa bbb ".repeat(50)), ("b.txt", &"ccc ddd ".repeat(30))]);
    let source = |name: &str, weight, file: &str| SourceConfig {
        name: name.to_owned(),
        weight,
        ..TextSpec::from(place.path("text").join(file).to_str().unwrap()).into()
    };
    let config = |weight| DataConfig {
        text: DataConfig::default().text,
        sources: vec![source("news", weight, "a.txt"), source("code", 1.0, "b.txt")],
        ..place.config("characters")
    };
    let prepared = prepare(&config(3.0), None, &mut |_| ControlFlow::Continue(())).unwrap();
    let expected = [
        "code-train-00000.oct",
        "code-validation-00000.oct",
        "news-train-00000.oct",
        "news-validation-00000.oct",
        "octet_tokenizer.json",
        "prepared.json",
        "report.html",
        "report.json",
        "tokenizer.json",
    ];
    assert_eq!(names(&prepared.folder), expected);
    let counts = |i: usize| {
        let counts = prepared.sources[i].counts;
        (counts.train_bytes + counts.validation_bytes, counts.documents)
    };
    assert_eq!((counts(0), counts(1)), ((400, 1), (240, 1)));
    // Letters of both, the space, and the end of a document.
    assert_eq!(prepared.tokenizer.vocabulary(), 6);
    let (name, tokenizer) = super::of_shard(&prepared.sources[1].train[0]).unwrap();
    assert_eq!((name.as_str(), tokenizer.digest()), ("code", prepared.tokenizer.digest()));
    // Weights are the run's business; the tokens are the same.
    let again = prepare(&config(5.0), None, &mut |_| ControlFlow::Continue(())).unwrap();
    assert!(again.reused);
    assert_eq!(again.identity, prepared.identity);
}

#[test]
fn an_interrupt_in_any_stage_leaves_nothing_and_the_next_call_begins_again() {
    let place = Place::new(&[("a.txt", &"some text to prepare ".repeat(2000))]);
    let config = place.config("bpe:300");
    for wanted in [Stage::Scan, Stage::Tokenizer, Stage::Encode, Stage::Write] {
        let mut watcher = |now: Progress| match now.stage == wanted {
            true => ControlFlow::Break(()),
            false => ControlFlow::Continue(()),
        };
        let ended = prepare(&config, None, &mut watcher);
        assert!(matches!(ended, Err(DataError::Interrupted)), "{wanted:?}");
        assert!(!place.path("made").exists(), "{wanted:?}");
    }
    assert!(!run(&config).unwrap().0.reused);
}

#[test]
fn two_at_once_prepare_once() {
    let place = Place::new(&[("a.txt", &"some text to prepare ".repeat(20_000))]);
    let config = place.config("bytes");
    let made: Vec<bool> = std::thread::scope(|scope| {
        let threads: Vec<_> =
            (0..4).map(|_| scope.spawn(|| run(&config).unwrap().0.reused)).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert_eq!(made.iter().filter(|&&reused| !reused).count(), 1);
}

#[test]
fn what_a_killed_preparation_left_is_removed() {
    let place = Place::new(&[("a.txt", "some text to prepare")]);
    fs::create_dir_all(place.path("made/cache/unfinished.tmp")).unwrap();
    fs::write(place.path("made/cache/unfinished.tmp/spool"), "half").unwrap();
    let prepared = run(&place.config("bytes")).unwrap();
    assert_eq!(names(&prepared.0.folder).len(), 7);
}

#[test]
fn a_disk_that_refuses_loses_nothing() {
    let place = Place::new(&[("a.txt", "some text to prepare")]);
    let first = run(&place.config("bytes")).unwrap();
    // In the way of the last file, which is the record: everything else was written.
    let other = place.path("made/other");
    fs::create_dir_all(other.join("train-00000.oct")).unwrap();
    let error = run(&DataConfig { cache: Some(other.clone()), ..place.config("bytes") });
    let error = error.err().unwrap();
    assert!(matches!(error, DataError::Io { .. }) && !error.is_user_error(), "{error}");
    assert!(error.to_string().contains("train-00000.oct"), "{error}");
    assert!(!names(&other).contains(&"unfinished.tmp".to_owned()));
    assert!(!names(&other).contains(&"prepared.json".to_owned()));
    assert!(run(&place.config("bytes")).unwrap().0.reused);
    assert_eq!(tokens(&first.train).len(), 18);
}

fn chain(text: &str) -> CleanChain {
    let table: toml::Table = toml::from_str(&format!("clean = {text}")).unwrap();
    table["clean"].clone().try_into().unwrap()
}

#[test]
fn documents_are_cleaned_before_they_become_tokens() {
    let files =
        [("a.txt", "too short"), ("b.txt", "caf\u{c3}\u{a9} au lait"), ("c.txt", "another one")];
    let place = Place::new(&files);
    let clean = chain("[\"unicode\", {step = \"length\", min_characters = 10}]");
    let config = DataConfig { clean, ..place.config("bytes") };
    let cleaned = run(&config).unwrap();
    assert_eq!((cleaned.counts.documents, cleaned.counts.files), (2, 3));
    // The identity is that of the tokens, wherever they come from.
    let plain = Place::new(&[("x.txt", "caf\u{e9} au lait"), ("y.txt", "another one")]);
    assert_eq!(run(&plain.config("bytes")).unwrap().0.identity, cleaned.0.identity);
    assert!(run(&config).unwrap().0.reused);
    // Other settings are other data, and so are those without a chain.
    let other = DataConfig { clean: chain("[\"unicode\"]"), ..config.clone() };
    assert!(matches!(run(&other).err().unwrap(), DataError::CacheInUse { .. }));
    let report = Report::read(&cleaned.0.folder).unwrap();
    let source = &report.sources[0];
    assert_eq!((source.documents_in(), source.documents, source.tokens()), (3, 2, 26));
    assert_eq!(source.steps[2].dropped["too_short"].samples[0].text, "too short");
    assert_eq!((source.files[&0].as_str(), source.formats["text"]), ("a.txt", 3));
    assert_eq!((&source.sizes, &source.lengths), (&vec![0, 0, 0, 2], &vec![0, 0, 0, 2]));
    let page = fs::read_to_string(cleaned.0.folder.join("report.html")).unwrap();
    assert!(page.contains("<strong>26</strong>") && page.contains("<b>too short</b>"));
}

#[test]
fn a_list_that_changes_makes_other_data() {
    let place = Place::new(&[("a.txt", "some text to prepare"), ("b.txt", "an evil text")]);
    let list = place.path("list");
    let file = list.to_str().unwrap();
    let clean = chain(&format!("[{{step = \"block_words\", file = \"{file}\"}}]"));
    let config = DataConfig { clean, ..place.config("bytes") };
    let missing = run(&config).err().unwrap();
    assert!(missing.is_user_error() && missing.to_string().contains("list"), "{missing}");
    fs::write(&list, "evil").unwrap();
    assert_eq!(run(&config).unwrap().counts.documents, 1);
    assert!(run(&config).unwrap().0.reused);
    fs::write(&list, "good").unwrap();
    assert!(matches!(run(&config).err().unwrap(), DataError::CacheInUse { .. }));
}

#[test]
fn an_interrupt_while_documents_are_cleaned_keeps_what_is_done() {
    let text = "some text to prepare ".repeat(2000);
    let place = Place::new(&[("a.txt", &text)]);
    let config = DataConfig { clean: chain("[\"unicode\"]"), ..place.config("bytes") };
    let mut watcher = |now: Progress| match now.stage {
        Stage::Encode => ControlFlow::Break(()),
        _ => ControlFlow::Continue(()),
    };
    assert!(matches!(prepare(&config, None, &mut watcher), Err(DataError::Interrupted)));
    let left = names(&place.path("made/cache/unfinished.tmp"));
    assert_eq!(left, ["-clean-0.documents", "chain.json"]);
    // The next call does not clean again, even if it could not.
    let mut cleaned = 0;
    let mut watcher = |now: Progress| {
        cleaned += usize::from(now.stage == Stage::Clean);
        ControlFlow::Continue(())
    };
    let prepared = One(prepare(&config, None, &mut watcher).unwrap());
    assert_eq!(cleaned, 0);
    assert_eq!(prepared.counts.train_bytes + prepared.counts.validation_bytes, text.len() as u64);
    assert_eq!(names(&prepared.0.folder).len(), 7);
    let plain = run(&DataConfig { cache: Some(place.path("plain")), ..place.config("bytes") });
    assert_eq!(plain.unwrap().0.identity, prepared.0.identity);
}
