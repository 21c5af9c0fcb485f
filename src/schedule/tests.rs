//! Tests of the learning rate: values of the reference formula, and what a resume relies on.

use super::{DecayShape, ScheduleConfig, Shape};

fn schedule(shape: Shape) -> ScheduleConfig {
    ScheduleConfig { shape, ..ScheduleConfig::default() }
}

/// Warm-up and cosine as in the PyTorch peer, in the same order of operations.
fn reference(step: u64, steps: u64) -> f64 {
    let (rate, minimum, warmup) = (1e-3, 1e-4, 100);
    if step < warmup {
        return rate * (step + 1) as f64 / warmup as f64;
    }
    let progress = std::f64::consts::PI * (step - warmup) as f64 / (steps - warmup).max(1) as f64;
    minimum + 0.5 * (rate - minimum) * (1.0 + progress.cos())
}

#[test]
fn cosine_is_the_reference_formula_bit_for_bit() {
    let schedule = schedule(Shape::Cosine);
    for step in 0..2000 {
        assert_eq!(schedule.rate(step, 2000), reference(step, 2000), "step {step}");
    }
    assert_eq!(schedule.rate(0, 2000), 1e-5);
    assert_eq!(schedule.rate(99, 2000), 1e-3);
    assert_eq!(schedule.rate(100, 2000), 1e-3);
    assert!((schedule.rate(1050, 2000) - 5.5e-4).abs() < 1e-18);
    assert_eq!(schedule.rate(2000, 2000), 1e-4);
    assert_eq!(schedule.rate(3000, 2000), 1e-4);
}

#[test]
fn linear_and_constant_share_the_warm_up() {
    let (linear, constant) = (schedule(Shape::Linear), schedule(Shape::Constant));
    for step in 0..100 {
        assert_eq!(linear.rate(step, 1100), reference(step, 1100));
        assert_eq!(constant.rate(step, 1100), reference(step, 1100));
    }
    assert!((linear.rate(600, 1100) - 5.5e-4).abs() < 1e-18);
    assert!((linear.rate(1100, 1100) - 1e-4).abs() < 1e-18);
    assert_eq!(constant.rate(1100, 1100), 1e-3);
}

#[test]
fn without_warm_up_the_first_step_has_the_peak() {
    let schedule = ScheduleConfig { warmup: 0, ..schedule(Shape::Cosine) };
    assert_eq!(schedule.rate(0, 10), 1e-3);
}

#[test]
fn a_given_length_makes_rates_independent_of_the_run() {
    let fixed = ScheduleConfig { steps: Some(500), ..schedule(Shape::Cosine) };
    for step in [0, 100, 250, 499, 700] {
        assert_eq!(fixed.rate(step, 600), fixed.rate(step, 9000));
    }
    assert_eq!(fixed.horizon(600), Some(500));
    assert_eq!(schedule(Shape::Cosine).horizon(600), Some(600));
    assert_eq!(schedule(Shape::Constant).horizon(600), None);
    assert_eq!(schedule(Shape::Cosine).horizon(100), None);
}

const SHAPES: [Shape; 5] =
    [Shape::Cosine, Shape::Linear, Shape::Constant, Shape::Wsd, Shape::InverseSqrt];

/// Many schedules of all shapes with their number of steps.
fn schedules() -> Vec<(ScheduleConfig, u64)> {
    let mut schedules = Vec::new();
    for shape in SHAPES {
        for (warmup, minimum, steps) in
            [(0, 0.0, 1), (1, 1e-4, 7), (100, 0.0, 1000), (30, 1e-3, 90)]
        {
            let plain = ScheduleConfig { warmup, minimum, ..schedule(shape) };
            schedules.push((plain.clone(), steps));
            if shape == Shape::Wsd {
                let decay_shape = Some(DecayShape::Linear);
                let wsd = ScheduleConfig { decay_fraction: Some(0.5), decay_shape, ..plain };
                let most = (steps - warmup).max(1);
                let long = ScheduleConfig { decay_steps: Some(most), ..plain_of(&wsd) };
                schedules.extend([(wsd, steps), (long, steps)]);
            }
        }
    }
    schedules
}

fn plain_of(wsd: &ScheduleConfig) -> ScheduleConfig {
    ScheduleConfig { decay_fraction: None, ..wsd.clone() }
}

#[test]
fn rates_rise_in_the_warm_up_and_never_after() {
    for (schedule, steps) in schedules() {
        schedule.validate(steps).unwrap();
        let (peak, warmup) = (schedule.learning_rate, schedule.warmup);
        let rate = |step| schedule.rate(step, steps);
        for step in 0..2 * steps {
            let (now, next) = (rate(step), rate(step + 1));
            assert!(now > 0.0 || schedule.minimum == 0.0, "{schedule:?} at {step}");
            assert!(now <= peak, "{schedule:?} at {step}");
            if step + 1 < warmup {
                assert!(next > now, "{schedule:?} at {step}");
            } else {
                assert!(next <= now, "{schedule:?} at {step}: {now} then {next}");
                assert!(now >= schedule.minimum, "{schedule:?} at {step}");
            }
        }
        if warmup > 0 {
            assert_eq!(rate(warmup - 1), peak, "{schedule:?}");
        }
        let descends = !matches!(schedule.shape, Shape::Constant | Shape::InverseSqrt);
        if descends && steps > warmup {
            assert!((rate(steps) - schedule.minimum).abs() < 1e-18, "{schedule:?}");
            assert_eq!(rate(steps), rate(5 * steps), "{schedule:?}");
        }
    }
}

#[test]
fn rates_are_continuous_at_the_joints() {
    // At a joint a rate moves no farther than one step of its steeper neighbour.
    for shape in SHAPES {
        let schedule = ScheduleConfig { minimum: 1e-5, ..schedule(shape) };
        let steps = 100_000;
        for (joint, _) in schedule.joints(steps) {
            let moved = (schedule.rate(joint + 1, steps) - schedule.rate(joint, steps)).abs();
            // The root is the steepest: √(1 / 20000) of the peak in its first step.
            assert!(moved <= 1e-3 / 100.0, "{shape:?} at {joint}: {moved}");
        }
    }
}

#[test]
fn wsd_is_stable_then_falls_as_its_formula_says() {
    let wsd = ScheduleConfig { warmup: 10, minimum: 0.0, ..schedule(Shape::Wsd) };
    for step in 9..=80 {
        assert_eq!(wsd.rate(step, 100), 1e-3, "{step}: a fifth of the steps fall by default");
    }
    assert!((wsd.rate(85, 100) - 5e-4).abs() < 1e-18, "1 - √(5/20)");
    assert_eq!(wsd.rate(100, 100), 0.0);
    let linear = ScheduleConfig {
        decay_steps: Some(40),
        decay_shape: Some(DecayShape::Linear),
        ..wsd.clone()
    };
    assert_eq!(linear.rate(60, 100), 1e-3);
    assert!((linear.rate(70, 100) - 7.5e-4).abs() < 1e-18);
    // A longer run is the same until the shorter one falls.
    for step in 0..=80 {
        assert_eq!(wsd.rate(step, 100), wsd.rate(step, 900));
    }
    let share = ScheduleConfig { decay_fraction: Some(1.0), ..wsd };
    assert!(share.rate(11, 100) < 1e-3, "it falls from the warm-up on");
}

#[test]
fn inverse_sqrt_halves_when_steps_are_four_times_as_many() {
    let schedule = ScheduleConfig { minimum: 1e-4, ..schedule(Shape::InverseSqrt) };
    assert_eq!(schedule.rate(99, 1), 1e-3);
    assert!((schedule.rate(399, 1) - 5e-4).abs() < 1e-18);
    assert!((schedule.rate(1599, 1) - 2.5e-4).abs() < 1e-18);
    assert_eq!(schedule.rate(1 << 30, 1), 1e-4);
    assert_eq!(schedule.horizon(600), None, "steps of the run do not matter");
    assert_eq!(schedule.rate(700, 800), schedule.rate(700, 9000));
    let cold = ScheduleConfig { warmup: 0, ..schedule };
    assert_eq!(cold.rate(0, 10), 1e-3);
}

#[test]
fn a_plan_says_where_rates_turn() {
    let wsd = ScheduleConfig { minimum: 0.0, ..schedule(Shape::Wsd) };
    let said = "wsd: 1.000e-5 at step 0, 1.000e-3 at step 99, 1.000e-3 at step 800, \
                0.000e0 at step 1000";
    assert_eq!(wsd.describe(1000), said);
    let short = schedule(Shape::Cosine).describe(49);
    assert_eq!(short, "cosine: 1.000e-5 at step 0, 5.000e-4 at step 49", "all warm-up");
}

#[test]
fn keys_of_wsd_are_refused_elsewhere_and_out_of_range() {
    let load = |keys: &str| {
        let text = format!("[run]\nsteps = 50\n[schedule]\nwarmup = 10\n{keys}");
        let path = std::path::Path::new("a.toml");
        crate::config::Config::parse(&text, path, &[]).map_err(|error| error.to_string())
    };
    let wsd = "shape = \"wsd\"\n";
    for (keys, says) in [
        ("decay_steps = 5", "schedule.decay_steps: expected schedule.shape = \"wsd\" beside it"),
        ("decay_fraction = 0.5", "schedule.decay_fraction: expected schedule.shape = \"wsd\""),
        ("decay_shape = \"sqrt\"", "schedule.decay_shape: expected schedule.shape = \"wsd\""),
        (&format!("{wsd}decay_steps = 5\ndecay_fraction = 0.5"), "got both"),
        (&format!("{wsd}decay_fraction = 0"), "above 0 and at most 1, got 0"),
        (&format!("{wsd}decay_steps = 0"), "from 1 to the 40 steps after the warm-up, got 0"),
        (&format!("{wsd}decay_steps = 41"), "from 1 to the 40 steps after the warm-up, got 41"),
        (&format!("{wsd}decay_shape = \"cos\""), "expected \"sqrt\" or \"linear\", got \"cos\""),
    ] {
        let refused = load(keys).unwrap_err();
        assert!(refused.starts_with("a.toml:") && refused.contains(says), "{refused}");
    }
    let digest = |keys: &str| load(&format!("{wsd}{keys}")).unwrap().digest();
    assert_ne!(digest(""), digest("decay_steps = 5"));
    assert_ne!(digest("decay_steps = 5"), digest("decay_steps = 5\ndecay_shape = \"linear\""));
}

#[test]
fn a_warm_up_that_outlasts_the_run_is_said() {
    let schedule = ScheduleConfig { warmup: 500, ..ScheduleConfig::default() };
    let said = schedule.caution(300).unwrap();
    assert!(said.contains("warmup = 500 is longer than the 300 steps"), "{said}");
    assert!(said.ends_with("comes to 6.000e-4 at most"), "{said}");
    assert_eq!(schedule.caution(500), None);
    // A part of a longer run.
    assert_eq!(ScheduleConfig { steps: Some(9000), ..schedule }.caution(300), None);
}
