//! A `tokenizer.json` that anybody may have written.
//!
//! Duty: the crate's tokenizer, or a sentence. The crate panics at some files; that is caught, and
//! not printed. Prohibition: looks at no vocabulary.

use std::cell::Cell;
use std::panic::{self, AssertUnwindSafe};
use std::sync::Once;

use serde_json::Value;
use tokenizers::Tokenizer;

/// Reads a file. An error is a sentence about it.
pub(super) fn read(json: &[u8]) -> Result<Tokenizer, String> {
    // First as JSON of any kind: what the crate says of a missing comma, it says as a panic.
    let Value::Object(fields) = serde_json::from_slice(json).map_err(|error| error.to_string())?
    else {
        return Err("expected a JSON object".to_owned());
    };
    if !fields.get("model").is_some_and(Value::is_object) {
        return Err("expected an object \"model\"".to_owned());
    }
    match quietly(|| Tokenizer::from_bytes(json)) {
        Ok(read) => read.map_err(|error| error.to_string()),
        Err(panic) => {
            let said = panic.downcast_ref::<String>().map(String::as_str);
            let said = said.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or_default();
            Err(format!("it is not as its format wants it ({said})"))
        }
    }
}

thread_local! {
    static QUIET: Cell<bool> = const { Cell::new(false) };
}

/// Runs something whose panics are an answer: they are returned, and nobody reads of them.
fn quietly<T>(work: impl FnOnce() -> T) -> std::thread::Result<T> {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let before = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            if !QUIET.get() {
                before(info);
            }
        }));
    });
    QUIET.set(true);
    let result = panic::catch_unwind(AssertUnwindSafe(work));
    QUIET.set(false);
    result
}
