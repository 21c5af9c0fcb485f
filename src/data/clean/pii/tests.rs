//! Tests of `pii` on worked examples.

use super::Pii;
use crate::data::clean::testing::kept;

#[test]
fn what_names_a_person_is_masked_and_the_like_is_not() {
    let phones = Pii { phone: "<PHONE>".to_owned(), ..Pii::default() };
    for (text, masked) in [
        ("ask jo.doe+x@mail.example.org, or", "ask email@example.com, or"),
        ("@jo and a@b", "@jo and a@b"),
        ("from 8.8.8.8 to 192.168.0.1", "from 22.214.171.124 to 192.168.0.1"),
        ("10.1.2.3 127.0.0.1 100.64.0.1 0.1.2.3", "10.1.2.3 127.0.0.1 100.64.0.1 0.1.2.3"),
        ("version 1.2.3", "version 1.2.3"),
        ("call +49 30 1234567 or (555) 123-4567.", "call <PHONE> or <PHONE>."),
        ("in 1999-2001, +5 or 123-456", "in 1999-2001, +5 or 123-456"),
        ("AKIAABCDEFGHIJKLMNOP", "<KEY>"),
        ("AKIAABCDEFGHIJKLMNO", "AKIAABCDEFGHIJKLMNO"),
        ("sk-0123456789abcdef0123456789abcdef", "<KEY>"),
        ("-----BEGIN RSA PRIVATE KEY-----\nMII\n-----END RSA PRIVATE KEY----- x", "<KEY> x"),
    ] {
        assert_eq!(kept(&phones, text), masked);
    }
    let off = Pii { email: String::new(), ip: String::new(), key: String::new(), ..phones };
    assert_eq!(kept(&off, "a@b.org 8.8.8.8"), "a@b.org 8.8.8.8");
}
