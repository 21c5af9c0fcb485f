//! Repetition in a corpus of two sources: any threads, any kill, one result.

use std::fs;
use std::ops::ControlFlow;
use std::path::Path;

use super::super::{Done, Stages};
use super::Against;
use crate::data::dedupe::DedupeConfig;
use crate::data::order::mix;
use crate::data::prepare::{Watch, prepare};
use crate::data::{Corpus, DataConfig, DataError, SourceConfig, TextSpec};

const SAMPLE: &str = "which of the four moons that galileo saw first is the largest one of all";

/// Text number `number`, of words that no other number has.
fn text(number: u64, words: u64) -> String {
    let letter = |at: u64, i: u64| char::from(b'a' + (mix(number << 32 | at << 8 | i) % 26) as u8);
    let word = |at: u64| (0..7).map(|i| letter(at, i)).collect::<String>();
    (0..words).map(word).collect::<Vec<_>>().join(" ")
}

/// Document number `number` of a source: every 4th repeats one before, every 5th nearly.
fn document(number: u64) -> String {
    let menu = "Home | About | Contact | Imprint | Terms";
    match number {
        13 => format!("{} {} {}", text(13, 50), SAMPLE.to_uppercase(), text(14, 50)),
        _ if number % 4 == 3 => text(number - 3, 90 + number % 60),
        _ if number % 5 == 4 => {
            format!("{} {}", text(number - 4, 88 + number % 60), text(number, 2))
        }
        _ if number.is_multiple_of(7) => {
            format!("{menu}\n{}\n\n{}", text(number, 90), text(number, 40))
        }
        _ => text(number, 90 + number % 60),
    }
}

fn lines(folder: &Path, name: &str, numbers: std::ops::Range<u64>) -> SourceConfig {
    let line = |number| serde_json::json!({ "text": document(number) }).to_string() + "\n";
    let path = folder.join(format!("{name}.jsonl"));
    fs::write(&path, numbers.map(line).collect::<String>()).unwrap();
    SourceConfig { name: name.to_owned(), ..TextSpec::from(path.to_str().unwrap()).into() }
}

struct Fixture {
    folder: tempfile::TempDir,
    texts: Vec<SourceConfig>,
    config: DedupeConfig,
}

fn fixture() -> Fixture {
    let folder = tempfile::tempdir().unwrap();
    let texts = vec![lines(folder.path(), "a", 0..4000), lines(folder.path(), "b", 3000..5000)];
    let sets = folder.path().join("sets.jsonl");
    fs::write(&sets, format!("{{\"question\": \"{SAMPLE}\"}}\n")).unwrap();
    let config = format!(
        "exact = true\nnear = {{}}\nlines = {{}}\nparagraphs = {{}}\nsubstring = {{bytes = 100}}\n\
         decontaminate = {{text = {:?}, field = \"question\"}}",
        sets.to_str().unwrap()
    );
    let config = toml::from_str(&config).unwrap();
    Fixture { folder, texts, config }
}

impl Fixture {
    fn corpora(&self) -> Vec<Corpus> {
        let scan = |text: &SourceConfig| Corpus::scan(text, &mut |_| Ok(()));
        self.texts.iter().map(|text| scan(text).unwrap()).collect()
    }

    /// What is left, and the reports.
    fn run(
        &self,
        stages: &mut Stages<'_>,
        watch: &mut Watch<'_>,
    ) -> Result<Vec<Vec<u8>>, DataError> {
        let sets = self.config.decontaminate.as_ref().unwrap();
        let source = SourceConfig { field: sets.field.clone(), ..sets.text.clone().into() };
        let sets = Corpus::scan(&source, &mut |_| Ok(())).unwrap();
        let files = vec![vec!["a.jsonl".to_owned()], vec!["b.jsonl".to_owned()]];
        let against = Against { config: &self.config, sets: Some(&sets), files: &files };
        let raw = self.corpora().into_iter().map(|corpus| (corpus, Done::default())).collect();
        let made = stages.dedupe(&against, &self.texts, raw, watch)?;
        let mut files: Vec<Vec<u8>> =
            made.iter().map(|(corpus, _)| fs::read(&corpus.files[0].path).unwrap()).collect();
        for name in ["dedupe.json", "contamination.jsonl"] {
            files.push(fs::read(stages.folder.join(name)).unwrap());
        }
        let left: std::collections::BTreeSet<_> = fs::read_dir(stages.folder)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .filter(|name| name.ends_with(".tmp"))
            .collect();
        assert!(left.is_empty(), "{left:?}");
        Ok(files)
    }
}

#[test]
fn any_number_of_threads_leaves_the_same() {
    let fixture = fixture();
    let [one, two, eight] = [1, 2, 8].map(|threads| {
        let folder = tempfile::tempdir().unwrap();
        let mut stages = Stages { threads, ..Stages::open(folder.path(), "key") };
        fixture.run(&mut stages, &mut Watch(&mut |_| ControlFlow::Continue(()))).unwrap()
    });
    assert!(one == two && one == eight);
    let report: serde_json::Value = serde_json::from_slice(&one[2]).unwrap();
    let step = |source: usize| &report["sources"][source]["steps"][0];
    let gone = |source: usize, reason: &str| {
        step(source)["dropped"][reason]["documents"].as_u64().unwrap_or(0)
    };
    assert_eq!((gone(0, "contaminated"), gone(1, "contaminated")), (1, 0));
    // The first thousand of the second source stand in the first one; 9 and 19 copy copies.
    assert!(gone(0, "exact_duplicate") == 0 && gone(1, "exact_duplicate") >= 1000, "{report}");
    assert!(gone(0, "near_duplicate") > 1000 && gone(1, "near_duplicate") > 200, "{report}");
    assert!(step(0)["changed"].as_u64().unwrap() > 250, "{report}");
    let touch: serde_json::Value = serde_json::from_slice(&one[3]).unwrap();
    assert_eq!((&touch["file"], &touch["sequences"]), (&"a.jsonl".into(), &3.into()));
}

#[test]
fn a_stage_that_was_killed_leaves_the_same() {
    let fixture = fixture();
    let whole = tempfile::tempdir().unwrap();
    let mut stages = Stages::open(whole.path(), "key");
    let expected =
        fixture.run(&mut stages, &mut Watch(&mut |_| ControlFlow::Continue(()))).unwrap();
    let folder = tempfile::tempdir().unwrap();
    for kill in 1.. {
        let mut stages = Stages { remember_bytes: 1 << 17, ..Stages::open(folder.path(), "key") };
        // Each try gets a little farther.
        let mut told = 0;
        let mut watch = |_| {
            told += 1;
            if told > 4 * kill { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        };
        match fixture.run(&mut stages, &mut Watch(&mut watch)) {
            Err(DataError::Interrupted) => {}
            Ok(files) => {
                assert!(kill > 3, "{kill} tries");
                assert!(files == expected);
                break;
            }
            Err(error) => panic!("{error}"),
        }
    }
}

#[test]
fn a_kill_before_the_report_loses_no_report() {
    let fixture = fixture();
    let folder = tempfile::tempdir().unwrap();
    let mut go_on = |_| ControlFlow::Continue(());
    let mut run = || fixture.run(&mut Stages::open(folder.path(), "key"), &mut Watch(&mut go_on));
    let expected = run().unwrap();
    // Everything is rewritten and remembered, but the report is not there.
    fs::remove_file(folder.path().join("dedupe.json")).unwrap();
    assert!(run().unwrap() == expected);
}

#[test]
fn a_bad_sample_of_an_evaluation_set_is_not_passed_over() {
    let fixture = fixture();
    let folder = fixture.folder.path();
    let sets = folder.join("sets.jsonl");
    let line = format!("{{\"question\": \"{SAMPLE}\"}}\n");
    fs::write(&sets, line.repeat(99) + "torn\n").unwrap();
    let text = TextSpec(vec![folder.join("a.jsonl").to_str().unwrap().to_owned()]);
    let (dedupe, cache) = (fixture.config.clone(), Some(folder.join("cache")));
    let config = DataConfig { text, cache, dedupe, ..DataConfig::default() };
    let refused = prepare(&config, None, &mut |_| ControlFlow::Continue(())).err().unwrap();
    let said = refused.to_string();
    assert!(said.starts_with("data.dedupe.decontaminate.text: 1 of 100 records are bad"), "{said}");
    // Nor is a file of a folder of them, for what it holds: in a folder of text it would be.
    let sets = folder.join("sets");
    fs::create_dir(&sets).unwrap();
    fs::write(sets.join("good.jsonl"), &line).unwrap();
    let mut config = config;
    config.dedupe.decontaminate.as_mut().unwrap().text =
        TextSpec(vec![sets.to_str().unwrap().to_owned()]);
    assert!(prepare(&config, None, &mut |_| ControlFlow::Continue(())).is_ok());
    for (name, bytes) in [("latin.txt", &b"caf\xe9"[..]), ("wide.txt", b"a\0\xff\0")] {
        fs::write(sets.join(name), bytes).unwrap();
        config.cache = Some(folder.join(name));
        let refused = prepare(&config, None, &mut |_| ControlFlow::Continue(())).err().unwrap();
        let said = refused.to_string();
        let file = sets.join(name);
        let starts = format!("data.dedupe.decontaminate.text: {}: byte ", file.display());
        assert!(refused.is_user_error() && said.starts_with(&starts), "{said}");
        assert!(said.contains("is not UTF-8"), "{said}");
        fs::remove_file(file).unwrap();
    }
}

#[test]
fn a_preparation_takes_repetition_out_and_says_so_in_its_key() {
    let fixture = fixture();
    let folder = fixture.folder.path();
    let text = TextSpec(vec![folder.join("a.jsonl").to_str().unwrap().to_owned()]);
    let index = folder.join("index");
    let near = format!("near = {{save = {:?}}}", index.to_str().unwrap());
    let prepared = |cache: &str, dedupe: &str| {
        let dedupe: DedupeConfig = toml::from_str(dedupe).unwrap();
        let (text, cache) = (text.clone(), Some(folder.join(cache)));
        let config = DataConfig { text, cache, dedupe, ..DataConfig::default() };
        prepare(&config, None, &mut |_| ControlFlow::Continue(()))
    };
    let documents =
        |cache, dedupe: &str| prepared(cache, dedupe).unwrap().sources[0].counts.documents;
    assert_eq!(documents("plain", ""), 4000);
    let left = documents("near", &near);
    assert!((2400..3000).contains(&left), "{left}");
    assert!(folder.join("near/dedupe.json").is_file());
    assert!(prepared("near", &near).unwrap().reused);
    // The same data again are all there already.
    let against = format!("near = {{against = [{:?}]}}", index.to_str().unwrap());
    let refused = prepared("again", &against).err().unwrap();
    assert!(refused.to_string().contains("no text found"), "{refused}");
    assert!(matches!(prepared("near", "").err().unwrap(), DataError::CacheInUse { .. }));
    let missing = prepared("other", "near = {against = [\"no/index\"]}").err().unwrap();
    assert!(missing.is_user_error() && missing.to_string().contains("no/index"), "{missing}");
}
