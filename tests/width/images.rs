//! Sequences with no, one or two images each: an encoder works on the live images of a micro-batch,
//! and their rows take the places that the text keeps for them. Rows beyond the extent are NaN.

use crate::harness::{
    BATCH, Cell, DType, Goal, Recompute, SYMBOLS, Study, Toy, Variables, WIDTH, block,
    cross_entropy, each, embedding, integers, learns, linear, one_digest, report, run, scales,
    scatter_rows, symbol, tower, weight,
};

const LENGTH: usize = 6;
const PIXELS: usize = 9;
/// Two images for every sample of a micro-batch.
const IMAGES_MAX: usize = 2 * BATCH.micro;

/// Images of a sample, so micro-batches have 0, 3, 1 or 4.
fn images(sample: u64) -> usize {
    [0, 0, 2, 1, 1, 0, 2, 2][sample as usize % 8]
}

fn toy(recompute: Recompute) -> Toy {
    let mut v = Variables::new();
    let eye = weight(&mut v, "eye", &[WIDTH, PIXELS]);
    let [encoder, trunk] = ["encoder", "trunk"].map(|name| tower(&mut v, name, weight));
    let head = weight(&mut v, "head", &[SYMBOLS, WIDTH]);
    let mut study = Study::new(v, recompute);
    let program = study.program("images", |g| {
        let [x, y] = integers(g, ["x", "y"], LENGTH * BATCH.micro);
        let [scale] = scales(g, ["scale"]);
        let pixels = g.input("pixels", &[IMAGES_MAX, PIXELS], DType::F32);
        let [places] = integers(g, ["places"], IMAGES_MAX);
        let count = g.input("count", &[], DType::I32);
        let [pixels, places] = [pixels, places].map(|t| g.with_live(t, count));
        let [eye, table, head] = [eye, trunk[0], head].map(|id| g.parameter(id));
        let seen = linear(g, pixels, eye, None)?;
        let seen = block(g, seen, encoder)?;
        let h = embedding(g, x, table)?;
        let h = scatter_rows(g, h, seen, places)?;
        let h = block(g, h, trunk)?;
        let logits = linear(g, h, head, None)?;
        let loss = cross_entropy(g, logits, y, scale)?;
        Ok(Goal::Train { loss: report(g, loss) })
    });
    study.toy(BATCH, move |_, _| each(BATCH, |_| program), data)
}

/// Text predicts its successor; an image, at the sample's start, what it shows.
fn data(cell: Cell<'_>) -> f64 {
    let samples = cell.first..cell.first + BATCH.micro as u64;
    let all = samples.flat_map(|s| (0..images(s)).map(move |image| (s, image)));
    let all: Vec<(u64, usize)> = all.collect();
    let place = |(s, i): (u64, usize)| (s - cell.first) as usize * LENGTH + i;
    let pixel = |(s, i)| ((symbol(s, i) * (cell.flat % PIXELS + 1)) as f64 * 0.7).sin();
    match cell.field {
        "x" => symbol(cell.sample, cell.at) as f64,
        "y" if cell.at < images(cell.sample) => symbol(cell.sample, cell.at) as f64,
        "y" => symbol(cell.sample, cell.at + 1) as f64,
        "count" => all.len() as f64,
        "places" => all.get(cell.flat).map_or(1e6, |&image| place(image) as f64),
        "pixels" => all.get(cell.flat / PIXELS).map_or(f64::NAN, |&image| pixel(image)),
        _ => 1.0 / (BATCH.global * LENGTH) as f64,
    }
}

#[test]
fn every_sample_has_its_own_number_of_images() {
    let trial = one_digest(16, toy);
    learns(&trial, 0.7);
    let before = run(toy(Recompute::None), 1, 0);
    for name in ["eye", "encoder.up"] {
        assert_ne!(trial.floats(name), before.floats(name), "images are not learned from");
    }
}
