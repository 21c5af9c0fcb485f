//! A step takes no memory: from the moment that plan and batch are there until the update is done,
//! a rank's thread allocates nothing. A test of its own, since it replaces the allocator.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use octet::config::Config;
use octet::data::prepare;
use octet::experiment::Experiment;
use octet::text::Text;
use octet_actors::contract::Workload;
use octet_actors::rank_memory::Zero;
use octet_actors::testing::{Leg, Moment, Watch, train_watched};

struct Counting;

thread_local! {
    static ALLOCATIONS: Cell<usize> = const { Cell::new(0) };
    static BEFORE: Cell<usize> = const { Cell::new(0) };
}

// SAFETY: hands everything to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.set(ALLOCATIONS.get() + 1);
        // SAFETY: the caller's promise is the system's.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise is the system's.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

const CONFIG: &str = r#"
[run]
steps = 20
[data]
text = "text.txt"
tokenizer = "bytes"
[batch]
micro = 2
global = 8
sequence_length = 32
[evaluate]
every = 0
[model]
family = "dense"
layers = 2
heads = 4
width = 32
"#;

fn experiment(folder: &Path, model: &str) -> Arc<dyn Workload> {
    let text = folder.join("text.txt");
    std::fs::write(&text, "Nothing is taken while a step goes on. ".repeat(200)).unwrap();
    let sets = [
        format!("data.text={}", text.display()),
        format!("data.cache={}", folder.join("cache").display()),
    ];
    let toml = format!("{CONFIG}{model}");
    let config = Config::parse(&toml, Path::new("test.toml"), &sets).unwrap();
    let prepared =
        prepare(&config.data, None, &mut |_| std::ops::ControlFlow::Continue(())).unwrap();
    let vocabulary = config.model.padded_vocabulary(prepared.tokenizer.vocabulary());
    let text = Text::open(&config, prepared).unwrap();
    Arc::new(Experiment::new(&config, vocabulary, Some(text)).unwrap())
}

/// Steps of all ranks that were watched, and the allocations in them.
fn count(workload: &Arc<dyn Workload>, leg: Leg) -> (usize, usize) {
    let (steps, allocations) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let sums = (steps.clone(), allocations.clone());
    let watch: Watch = Arc::new(move |_, moment| match moment {
        Moment::Before => BEFORE.set(ALLOCATIONS.get()),
        Moment::After => {
            sums.0.fetch_add(1, Ordering::Relaxed);
            sums.1.fetch_add(ALLOCATIONS.get() - BEFORE.get(), Ordering::Relaxed);
        }
    });
    train_watched(workload, &[leg], &watch).unwrap();
    (steps.load(Ordering::Relaxed), allocations.load(Ordering::Relaxed))
}

#[test]
fn no_step_of_any_rank_allocates() {
    let llama =
        "norm = \"rms_norm\"\npositions = \"rope\"\nactivation = \"swiglu\"\nkv_heads = 2\n";
    let gpt2 =
        "norm = \"layer_norm\"\npositions = \"learned\"\nactivation = \"gelu\"\nbias = true\n";
    let narrow = format!("{llama}dtype = \"bf16\"\n");
    for model in [llama, gpt2, &narrow] {
        let folder = tempfile::tempdir().unwrap();
        let workload = experiment(folder.path(), model);
        for (ranks, zero) in [(1, Zero::Zero1), (2, Zero::Zero1), (4, Zero::Zero0)] {
            let counted = count(&workload, Leg { ranks, zero, steps: 5 });
            assert_eq!(counted, (5 * ranks, 0), "{ranks} ranks, {zero:?}: {model}");
        }
    }
    let before = ALLOCATIONS.get();
    drop(std::hint::black_box(Box::new(1)));
    assert!(ALLOCATIONS.get() > before, "the counter counts");
}
