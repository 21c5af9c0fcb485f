//! Records of BERT and ELECTRA from the formulas of `scripts/parity_encoders.py`.

use octet_actors::contract::Record;
use octet_kernels::graph::Program;

use crate::formula::{drawn, token};
use crate::workload::VOCABULARY;

const LENGTH: usize = 16;
/// Rows of a step, and tokens of a row that are told.
const ROWS: usize = 4;
const TOLD: usize = 2;
const MASK: i32 = VOCABULARY as i32 - 1;
/// The default of `objective.weight`.
const JUDGE_WEIGHT: f32 = 50.0;

/// Fills a record with rows of a step, from this one on.
pub(crate) fn fill(program: &Program, record: &mut Record<'_>, step: u64, first: usize) {
    let bert = program.field("follows").is_some();
    let rows = record.field::<i32>(program, "tokens").len() / LENGTH;
    let mut set = |field: &str, at: usize, value: i32| {
        if program.field(field).is_some() {
            record.field::<i32>(program, field)[at] = value;
        }
    };
    for row in 0..rows {
        let global = first + row;
        let text = |t| token(step, global * (LENGTH + 1) + t, VOCABULARY);
        for t in 0..LENGTH {
            let at = row * LENGTH + t;
            let padding = bert && t >= LENGTH - 2 && global % 2 == 1;
            set("tokens", at, text(t));
            set("seen", at, text(t));
            set("there", at, 1);
            set("positions", at, t as i32);
            set("segments", at, i32::from(padding));
            set("types", at, i32::from(t >= LENGTH / 2 && !padding));
        }
        for k in 0..TOLD {
            let place = 7 * k + drawn("hidden", step, TOLD * global + k) as usize % 7;
            let at = row * LENGTH + place;
            set("hidden", TOLD * row + k, at as i32);
            set("labels", TOLD * row + k, text(place));
            set("row_sample", TOLD * row + k, row as i32);
            set("element", TOLD * row + k, place as i32);
            if k == 0 {
                set(if bert { "tokens" } else { "seen" }, at, MASK);
            }
        }
        set("follows", row, (drawn("follows", step, global) % 2) as i32);
    }
    let scales = [
        ("scale", 1.0 / (ROWS * TOLD) as f32),
        ("pair_scale", 1.0 / ROWS as f32),
        ("judge_scale", JUDGE_WEIGHT / (ROWS * LENGTH) as f32),
    ];
    for (name, scale) in scales {
        if program.field(name).is_some() {
            record.field::<f32>(program, name)[0] = scale;
        }
    }
}
