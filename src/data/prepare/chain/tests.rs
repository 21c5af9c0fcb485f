//! Tests of the stages: any threads, any kill, one result; and where steps end a preparation.

use std::fs;
use std::ops::ControlFlow;
use std::path::Path;

use super::{Done, Stages};
use crate::data::clean::CleanChain;
use crate::data::prepare::Watch;
use crate::data::{Corpus, DataError, SourceConfig, TextSpec};

/// Documents in files of every size and in lines, with what steps drop and change.
pub(in crate::data) fn corpus(folder: &Path) -> Corpus {
    for number in 0..40 {
        let text = format!("document {number} caf\u{c3}\u{a9} ").repeat(1 + number * number * 9);
        fs::write(folder.join(format!("{number:02}.txt")), text).unwrap();
    }
    let line = |i: usize| format!("{{\"text\": \"line {i} {}\"}}\n", "of words ".repeat(i % 60));
    let lines = (0..9000).map(line).collect::<String>() + "no line\n{\"text\": \"\"}\n";
    fs::write(folder.join("c.jsonl"), lines).unwrap();
    let text = TextSpec::from(folder.to_str().unwrap());
    Corpus::scan(&text.into(), &mut |_| Ok(())).unwrap()
}

fn chain() -> CleanChain {
    let table: toml::Table = toml::from_str(
        "clean = [\"unicode\", {step = \"length\", min_characters = 100, max_characters = 99000}]",
    )
    .unwrap();
    table["clean"].clone().try_into().unwrap()
}

fn bytes(corpus: &Corpus) -> Vec<u8> {
    fs::read(&corpus.files[0].path).unwrap()
}

fn clean(folder: &Path, corpus: &Corpus, threads: usize) -> (Corpus, Done) {
    let mut stages = Stages { threads, ..Stages::open(folder, "key") };
    stages.clean("x", &chain(), corpus, &mut |_| Ok(())).unwrap()
}

#[test]
fn any_number_of_threads_gives_the_same_documents_and_the_same_report() {
    let texts = tempfile::tempdir().unwrap();
    let corpus = corpus(texts.path());
    let [one, two, eight] = [1, 2, 8].map(|threads| {
        let folder = tempfile::tempdir().unwrap();
        let (made, done) = clean(folder.path(), &corpus, threads);
        let made = bytes(&made);
        (made, Done { spooled: None, ..done })
    });
    assert!(one == two && one == eight);
    let [whole, unicode, length] = one.1.steps.as_slice() else { panic!() };
    assert_eq!((whole.documents_in, one.1.passed_over.bad_lines), (9040, 1));
    assert_eq!((one.1.passed_over.empty, one.1.passed_over.records), (1, 9042));
    assert_eq!((unicode.documents_out, unicode.changed), (9040, 40));
    let [short, long] = ["too_short", "too_long"].map(|reason| &length.dropped[reason]);
    assert_eq!(length.documents_out, 9040 - short.documents - long.documents);
    assert!(short.documents > 1000 && long.documents > 10);
    assert_eq!(short.samples.len(), 5);
    let bad = &one.1.passed_over.examples[0];
    let file = fs::read_to_string(texts.path().join("c.jsonl")).unwrap();
    assert!(file[bad.offset as usize..].starts_with("no line"), "{bad:?}");
    assert!(bad.reason.starts_with("line 9001: "), "{bad:?}");
}

#[test]
fn a_stage_goes_on_where_it_was_killed() {
    let texts = tempfile::tempdir().unwrap();
    let corpus = corpus(texts.path());
    let whole = tempfile::tempdir().unwrap();
    let (expected, report) = clean(whole.path(), &corpus, 2);
    let folder = tempfile::tempdir().unwrap();
    let mut kills = 0;
    // Each try is killed after it has remembered a little more.
    loop {
        let mut stages = Stages { remember_bytes: 1 << 19, ..Stages::open(folder.path(), "key") };
        let before = stages.state.stages.get("x").map_or(0, |done| done.parts);
        let ended = stages.clean("x", &chain(), &corpus, &mut |done| {
            let far = done > 1 << 20;
            if far { Err(DataError::Interrupted) } else { Ok(()) }
        });
        let Err(DataError::Interrupted) = ended else { break };
        kills += 1;
        let after = Stages::open(folder.path(), "key").state.stages["x"].parts;
        assert!(after > before, "{after} parts after {kills} kills");
        // What was written behind the place that is remembered does not count.
        let path = folder.path().join("x.documents");
        let torn = [fs::read(&path).unwrap(), b"torn".to_vec()].concat();
        fs::write(&path, torn).unwrap();
    }
    assert!(kills > 2, "{kills}");
    let (made, done) = clean(folder.path(), &corpus, 1);
    assert_eq!(done.parts, report.parts);
    assert_eq!(done.steps, report.steps);
    let texts = |corpus: &Corpus| {
        let mut texts = Vec::new();
        corpus
            .for_each(&mut |text, _| {
                texts.push(text.to_owned());
                Ok(())
            })
            .unwrap();
        texts
    };
    assert!(texts(&made) == texts(&expected));
    // Of another key nothing is used.
    assert!(Stages::open(folder.path(), "other").state.stages.is_empty());
}

#[test]
fn too_many_bad_records_end_it() {
    let texts = tempfile::tempdir().unwrap();
    let lines = "{\"text\": \"fine\"}\n".repeat(19) + "bad\n";
    fs::write(texts.path().join("a.jsonl"), lines).unwrap();
    let with = |share| {
        let text = TextSpec::from(texts.path().to_str().unwrap());
        let clean = Some(toml::from_str::<toml::Table>("c = [\"unicode\"]").unwrap()["c"].clone());
        let clean = clean.map(|value| value.try_into().unwrap());
        let source = SourceConfig { bad_records_max: Some(share), clean, ..text.into() };
        let corpus = Corpus::scan(&source, &mut |_| Ok(())).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let mut go_on = |_| ControlFlow::Continue(());
        let mut watch = Watch(&mut go_on);
        let made = Stages::open(folder.path(), "key").run(&[source], vec![corpus], &mut watch);
        made.map(|made| made[0].1.passed_over.bad_lines)
    };
    assert_eq!(with(0.05).unwrap(), 1);
    let error = with(0.049).unwrap_err();
    assert!(error.is_user_error());
    let said = error.to_string();
    assert!(
        said.contains("1 of 20 records are bad") && said.contains("a.jsonl, byte 323: line 20")
    );
}

#[test]
fn pieces_follow_one_another_and_a_kill_between_them_loses_nothing() {
    let texts = tempfile::tempdir().unwrap();
    let corpus = corpus(texts.path());
    let table: toml::Table = toml::from_str(
        "clean = [\"unicode\", {step = \"boilerplate\", max_documents = 149, min_characters = 3}]",
    )
    .unwrap();
    let chain: CleanChain = table["clean"].clone().try_into().unwrap();
    let texts_of = |corpus: &Corpus| {
        let mut texts = Vec::new();
        corpus
            .for_each(&mut |text, _| {
                texts.push(text.to_owned());
                Ok(())
            })
            .unwrap();
        texts
    };
    let clean = |folder: &Path, threads: usize, kill: u64| {
        let mut stages = Stages { threads, remember_bytes: 1 << 19, ..Stages::open(folder, "key") };
        let mut calls = 0;
        stages.clean_all("x", &chain, corpus.clone(), &mut |_| {
            calls += 1;
            if calls > kill { Err(DataError::Interrupted) } else { Ok(()) }
        })
    };
    let whole = tempfile::tempdir().unwrap();
    let (expected, report) = clean(whole.path(), 1, u64::MAX).unwrap();
    let expected = texts_of(&expected);
    let steps: Vec<&str> = report.steps.iter().map(|step| step.name.as_str()).collect();
    assert_eq!(steps, ["whole", "unicode", "boilerplate"]);
    assert_eq!(report.passed_over.bad_lines, 1);
    // Lines of 60 lengths, each 150 times, but for their numbers: nothing is boilerplate.
    assert_eq!(report.steps[2].changed, 0);
    let folder = tempfile::tempdir().unwrap();
    let (mut kills, mut ended) = (0, None);
    while ended.is_none() {
        ended = clean(folder.path(), 2, 15 + kills * 15).ok();
        kills += 1;
    }
    let (made, done) = ended.unwrap();
    assert!(kills > 2 && texts_of(&made) == expected, "{kills}");
    assert_eq!(done.steps, report.steps);
    // The first piece's documents are gone, and nothing is done again.
    assert_eq!(fs::metadata(folder.path().join("x-clean-0.documents")).unwrap().len(), 0);
    let (again, done) = clean(folder.path(), 2, 0).unwrap();
    assert!(texts_of(&again) == expected && done.steps == report.steps);
}
