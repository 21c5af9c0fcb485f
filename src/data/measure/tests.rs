//! Tests that the measurements measure what they say. Speeds are printed by `octet bench data`.

use super::{copy_bandwidth, fill_speed, stage_times};
use crate::data::{
    DataConfig, SampleRule, Samples, TextSpec, Tokenizer, Windows, config::Packing, prepare,
};
use std::ops::ControlFlow;

#[test]
fn everything_is_measured_once() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("a.txt");
    std::fs::write(&file, "x".repeat(5000)).unwrap();
    let text = TextSpec::from(file.to_str().unwrap());
    let config =
        DataConfig { text, cache: Some(folder.path().join("cache")), ..DataConfig::default() };
    let times = stage_times(&config, &Tokenizer::bytes(), folder.path()).unwrap();
    assert_eq!((times.text_bytes, times.tokens), (5000, 5000));
    assert!(times.read_s > 0.0 && times.tokenize_s > 0.0 && times.write_s > 0.0);
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "only the text is left");
    let prepared = prepare(&config, None, &mut |_| ControlFlow::Continue(())).unwrap();
    let rule = SampleRule {
        seed: 0,
        identity: &prepared.identity,
        cut: Default::default(),
        layout: config.window_layout(100),
        packing: Packing::Concatenate,
        windows: Windows::Shuffled,
        end_of_document: None,
    };
    let samples = Samples::open(&prepared.sources[0].train, &rule).unwrap();
    for threads in [1, 2, 3] {
        let fill = |sample, rows: super::WindowRows<'_>| samples.fill(sample, rows);
        let speed = fill_speed(threads, 300, 100, &fill).unwrap();
        assert_eq!((speed.samples, speed.targets), (300, 30_000));
        assert!(speed.tokens_per_s > 0.0);
    }
    assert!(copy_bandwidth() > 0.0);
}
