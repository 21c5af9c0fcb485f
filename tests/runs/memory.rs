//! Memory and recompute of real runs: a process stays within what `octet plan` says, and no
//! recompute policy changes a bit.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::harness::{Home, Running, reference};

/// Everything that takes memory happens within a few steps.
const BUSY: [&str; 5] =
    ["run.steps=4", "checkpoint.every=2", "evaluate.every=2", "sample.every=2", "sample.tokens=8"];

/// Seven million parameters: their state outweighs the code around them.
const LARGER: [&str; 5] = [
    "model.width=384",
    "model.feed_forward=1024",
    "model.layers=4",
    "batch.global=4",
    "batch.micro=1",
];

fn plan(home: &Home, sets: &[&str]) -> Value {
    let output = home.command("plan", sets).args(["--target", "cpu", "--json"]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// Anonymous memory of a process in bytes; `None` when it is gone.
fn anonymous(process: i32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}

/// The engine from its first moment, before it has a run folder.
fn engine(run: &Running) -> Option<i32> {
    let parent = run.parent();
    let children = fs::read_to_string(format!("/proc/{parent}/task/{parent}/children")).ok()?;
    children.split_whitespace().next()?.parse().ok()
}

/// The most anonymous memory that a training held at any time it was looked at.
fn peak(home: &Home, name: &str, sets: &[&str]) -> u64 {
    let mut run = home.start(name, sets);
    let mut peak = 0;
    run.until(|run| {
        peak = peak.max(engine(run).and_then(anonymous).unwrap_or(0));
        false
    });
    let end = run.wait();
    assert!(end.success(), "{end:?}");
    peak
}

fn holds(sets: &[&str]) {
    let home = Home::new();
    let sets = [&BUSY, sets].concat();
    let plan = plan(&home, &sets);
    let bytes = |value: &Value| value.as_u64().unwrap();
    let parts = plan["host"].as_array().unwrap();
    // Snapshots lie in shared memory, which is not anonymous.
    let host = parts.iter().filter(|part| part["name"] != "snapshot slots");
    let host: u64 = host.map(|part| bytes(&part["bytes"])).sum();
    let arenas = bytes(&plan["arena_bytes"]) * bytes(&plan["ranks"]);
    let planned = arenas + host + bytes(&plan["outside_bytes"]);
    let held = peak(&home, "runs/held", &sets);
    assert!(held <= planned, "{held} bytes were held, {planned} are planned: {sets:?}");
    // It was the engine that was watched, and its arenas are in use.
    assert!(held >= arenas / 2, "{held} bytes were held of arenas of {arenas}: {sets:?}");
    assert_eq!(plan["fits"], true);
}

#[test]
fn a_small_run_stays_within_its_plan() {
    holds(&[]);
    holds(&["run.ranks=2"]);
}

#[test]
fn a_larger_run_stays_within_its_plan() {
    holds(&LARGER);
}

/// A control group of our own with so many bytes, to be entered by writing to its list of
/// processes; `None` where we may not make one.
fn memory_group(bytes: u64) -> Option<PathBuf> {
    let groups = fs::read_to_string("/proc/self/cgroup").ok()?;
    let path = |mark: &str| {
        let line = groups.lines().find(|line| line.contains(mark))?;
        Some(line.rsplit_once(':')?.1.trim_start_matches('/').to_owned())
    };
    let (root, limit) = match path(":memory:") {
        Some(path) => (Path::new("/sys/fs/cgroup/memory").join(path), "memory.limit_in_bytes"),
        None => (Path::new("/sys/fs/cgroup").join(path("0::")?), "memory.max"),
    };
    let group = root.join(format!("octet-test-{}", std::process::id()));
    fs::create_dir(&group).ok()?;
    let limited = fs::write(group.join(limit), bytes.to_string());
    let entered = limited.is_ok() && group.join("cgroup.procs").exists();
    entered.then_some(group.clone()).or_else(|| fs::remove_dir(group).ok().and(None))
}

#[test]
fn a_kill_for_want_of_memory_is_called_that() {
    let Some(group) = memory_group(48 << 20) else {
        let skipped = "skipped: no right to make a control group";
        let _closed = writeln!(std::io::stderr(), "{skipped}");
        return;
    };
    let home = Home::new();
    let mut inner = home.command("train", &LARGER);
    inner.args(["--run", "runs/killed"]);
    // A shell enters the group and becomes the program.
    let mut command = Command::new("sh");
    command.current_dir(home.path("")).arg("-c").arg("echo $$ >\"$0\"; exec \"$@\"");
    command.arg(group.join("cgroup.procs")).arg(inner.get_program()).args(inner.get_args());
    let end = Running::start(command, home.path("runs/killed")).wait();
    fs::remove_dir(&group).unwrap();
    assert_eq!(end.code(), Some(75), "{end:?}");
    let named = end.stderr.matches("the engine was killed for want of memory").count();
    assert_eq!(named, 4, "{}", end.stderr);
    assert!(end.stderr.contains("failed 4 times before its first step"), "{}", end.stderr);
}

#[test]
fn no_recompute_policy_changes_a_bit() {
    let home = Home::new();
    let arena = |policy: &str| {
        let plan = plan(&home, &[&format!("model.recompute={policy}")]);
        plan["arena_bytes"].as_u64().unwrap()
    };
    let (most, least) = (arena("none"), arena("block"));
    assert!(least < most);
    for policy in ["norm_activation", "feed_forward", "block", "block:3,norm_activation"] {
        let name = format!("runs/{}", policy.replace([':', ','], "-"));
        let run = home.train(&name, &[&format!("model.recompute={policy}")]);
        assert_eq!(&run, reference(), "{policy}");
    }
    // By a budget between them: blocks differ, it is written down, and the bits are the same.
    let budget = format!("model.recompute_budget={}", (most + least) / 2);
    let sets = ["model.recompute=auto", &budget];
    assert_eq!(&home.train("runs/auto", &sets), reference());
    let stored = fs::read_to_string(home.path("runs/auto/config.toml")).unwrap();
    let line = stored.lines().find(|line| line.starts_with("recompute = ")).unwrap();
    assert!(line.contains(':') && line.contains(','), "{line}");
    assert!(stored.contains(&budget.replace("model.", "").replace('=', " = ")), "{stored}");
}

#[test]
fn a_run_with_a_tight_budget_is_evaluated_on_one_rank() {
    let home = Home::new();
    let arena = |sets: &[&str]| plan(&home, sets)["arena_bytes"].as_u64().unwrap();
    let four = arena(&["run.ranks=4"]);
    assert!(four < arena(&[]), "one rank has more gradient buffers");
    let budget = format!("model.recompute_budget={four}");
    home.train("runs/tight", &["run.ranks=4", "run.steps=2", &budget]);
    let mut look = Command::new(env!("CARGO_BIN_EXE_octet"));
    let looked = look.arg("evaluate").arg(home.path("runs/tight")).output().unwrap();
    assert!(looked.status.success(), "{}", String::from_utf8_lossy(&looked.stderr));
}
