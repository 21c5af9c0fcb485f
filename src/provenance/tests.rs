//! The facts name this very program.

use super::here;

#[test]
fn facts_are_stable_and_name_the_file_that_runs() {
    let facts = here();
    assert_eq!(facts, here());
    let own = std::fs::read(std::env::current_exe().unwrap()).unwrap();
    let digest = blake3::hash(&own).to_hex();
    assert!(facts["the program"].contains(&digest[..16]), "{facts:?}");
    assert!(facts["the instruction set"].starts_with(std::env::consts::ARCH), "{facts:?}");
    assert!(!facts["the C library"].is_empty());
}
