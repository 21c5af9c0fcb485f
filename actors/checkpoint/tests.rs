//! Round trips, damage, retention. Crashes at every operation are in `crash`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use octet_kernels::dtype::DType;
use safetensors::SafeTensors;

use crate::checkpoint::manifest::MANIFEST;
use crate::checkpoint::tensor_file::{TensorFileReader, TensorFileWriter, TensorSpec};
use crate::checkpoint::tensor_header::header;
use crate::checkpoint::{
    About, CheckpointError, Contents, Manifest, Saved, Store, StoreSettings, inspect, load, verify,
};
use crate::outside::faulty::FaultyDisk;
use crate::outside::{Disk, LocalDisk};
use crate::run_folder::replace;
use crate::snapshot::tests::{cursor, empty_slot, fill, filled_slot, layout};
use crate::snapshot::{Slot, SnapshotLayout, digest};

mod crash;
mod trust;

pub(crate) const ROOT: &str = "/run/checkpoints";

/// Small files, so that there are several of each kind; one thread, so that the order is fixed.
pub(crate) const SETTINGS: StoreSettings =
    StoreSettings { keep_last: 3, keep_every: 0, keep_best: 0, file_bytes_max: 2000, threads: 1 };

pub(crate) fn store(disk: &FaultyDisk, settings: StoreSettings) -> Store {
    Store::new(Arc::new(disk.clone()), ROOT, settings)
}

/// Saves a state made from `step` and `seed`.
pub(crate) fn save(store: &Store, step: u64, seed: u8) -> Result<Saved, CheckpointError> {
    let slot = filled_slot(&layout(64), step, seed);
    store.save(&slot.view().expect("committed"), &about())
}

fn about() -> About {
    About {
        provenance: BTreeMap::new(),
        config_digest: "c0ffee".into(),
        identity: BTreeMap::from([("batch.micro".into(), "4".into())]),
        parent: Some("step-00000001".into()),
        saved_unix_ms: 77,
    }
}

fn content(slot: &Slot, layout: &SnapshotLayout) -> Vec<Vec<u8>> {
    let view = slot.view().expect("committed");
    layout.tensors().iter().map(|t| view.bytes(t).to_vec()).collect()
}

fn round_trip(disk: Arc<dyn Disk>, root: &Path, threads: usize, file_bytes_max: u64) {
    let settings = StoreSettings { threads, file_bytes_max, ..SETTINGS };
    let store = Store::new(disk.clone(), root, settings);
    let saved_layout = layout(64);
    let slot = filled_slot(&saved_layout, 12, 3);
    let saved = store.save(&slot.view().expect("view"), &about()).expect("save");
    assert_eq!(saved.path, root.join("step-00000012"));
    assert_eq!(saved.digest, digest(&slot.view().expect("view")));
    assert_eq!(slot.head().expect("head").digest.as_ref(), Some(&saved.digest), "sealed");

    // Another padding and other places in memory: the same tensors.
    let other_layout = layout(4096);
    let back = empty_slot(&other_layout, 1);
    fill(&back, 200, 0xee);
    let manifest = load(&*disk, &saved.path, &back, 9, Contents::All, threads).expect("load");
    assert_eq!(content(&back, &other_layout), content(&slot, &saved_layout));
    let head = back.check().expect("its digest is right");
    assert_eq!((head.step, head.sequence, head.cursor), (12, 9, cursor(12)));
    assert_eq!(head.digest, Some(saved.digest));
    assert_eq!(manifest.identity["batch.micro"], "4");
    assert_eq!(manifest.parent.as_deref(), Some("step-00000001"));
    assert_eq!(verify(&*disk, &saved.path, threads).expect("verify"), manifest);
    let found = store.find_newest_good().expect("search").newest.expect("found");
    assert_eq!((found.path, found.manifest), (saved.path, manifest));
}

#[test]
fn a_state_comes_back_bit_by_bit() {
    for (threads, file_bytes_max) in [(1, 2000), (3, 2000), (2, 2 << 30), (1, 1)] {
        let disk = FaultyDisk::new();
        round_trip(Arc::new(disk), Path::new(ROOT), threads, file_bytes_max);
        let folder = tempfile::tempdir().expect("a temporary folder");
        let root = folder.path().join("runs/x/checkpoints");
        round_trip(Arc::new(LocalDisk), &root, threads, file_bytes_max);
    }
}

#[test]
fn files_are_read_by_the_safetensors_crate() {
    let disk = FaultyDisk::new();
    let saved_layout = layout(64);
    let slot = filled_slot(&saved_layout, 5, 1);
    let view = slot.view().expect("view");
    let saved = store(&disk, SETTINGS).save(&view, &about()).expect("save");
    let names = disk.list(&saved.path).expect("list");
    let files: Vec<&String> = names.iter().filter(|n| n.ends_with(".safetensors")).collect();
    assert!(files.iter().filter(|n| n.starts_with("model-")).count() > 1, "{files:?}");
    let mut seen = 0;
    for file in files {
        let bytes = disk.read(&saved.path.join(file)).expect("read");
        let tensors = SafeTensors::deserialize(&bytes).expect("the crate reads it");
        for (name, tensor) in tensors.tensors() {
            let mine = saved_layout.tensors().iter().find(|t| t.name == name).expect("known");
            let dtype = match mine.dtype {
                DType::F32 => safetensors::Dtype::F32,
                DType::Bf16 => safetensors::Dtype::BF16,
                DType::I64 => safetensors::Dtype::I64,
                other => panic!("no {other} in this run"),
            };
            assert_eq!((tensor.dtype(), tensor.shape()), (dtype, &mine.shape[..]), "{name}");
            assert_eq!(tensor.data(), view.bytes(mine), "{name}");
            let address = tensor.data().as_ptr() as usize - bytes.as_ptr() as usize;
            assert!(address.is_multiple_of(mine.dtype.bytes()), "{name} is aligned");
            seen += 1;
        }
    }
    assert_eq!(seen, saved_layout.tensors().len());
}

#[test]
fn tensor_files_read_what_the_crate_writes() {
    let data = [1u8, 2, 3, 4, 5, 6, 7, 8];
    let view = |dtype, shape: Vec<usize>, bytes| {
        safetensors::tensor::TensorView::new(dtype, shape, bytes).expect("a view")
    };
    let tensors = [
        ("b", view(safetensors::Dtype::U8, vec![2], &data[..2])),
        ("a", view(safetensors::Dtype::I32, vec![], &data[4..])),
        ("empty", view(safetensors::Dtype::F64, vec![0, 3], &[])),
    ];
    let bytes = safetensors::serialize(tensors, None).expect("serialize");
    let disk = FaultyDisk::new();
    disk.create(Path::new("/f")).expect("create").write_all(&bytes).expect("write");
    let mut reader = TensorFileReader::open(&disk, Path::new("/f")).expect("open");
    for spec in reader.tensors().to_vec() {
        let mut read = vec![0; spec.bytes() as usize];
        reader.read(&mut read).expect("read");
        let expected: &[u8] = match spec.name.as_str() {
            "a" => &data[4..],
            "b" => &data[..2],
            _ => &[],
        };
        assert_eq!(read, expected, "{}", spec.name);
    }
    assert_eq!(reader.finish().expect("whole"), blake3::hash(&bytes));
}

#[test]
fn headers_with_gaps_or_wrong_sizes_are_refused() {
    let entry = |dtype, shape, start: u64, end: u64| {
        format!(r#"{{"dtype":"{dtype}","shape":{shape},"data_offsets":[{start},{end}]}}"#)
    };
    for (text, complaint) in [
        (format!(r#"{{"w":{}}}"#, entry("F32", "[2]", 4, 12)), "starts at 4"),
        (format!(r#"{{"w":{}}}"#, entry("F32", "[2]", 0, 12)), "entry of tensor w"),
        (format!(r#"{{"w":{}}}"#, entry("F31", "[2]", 0, 16)), "tensor w is of type F31"),
        (format!(r#"{{"w":{}}}"#, entry("F32", "[-2]", 0, 8)), "entry of tensor w"),
        (format!(r#"{{"w":{}}}"#, entry("F32", "[2]", 0, 8)), "its header says"),
        (
            format!(r#"{{"w":{}}}"#, entry("F32", "[2500000000]", 0, 10_000_000_000)),
            "header says 1",
        ),
        (
            format!(
                r#"{{"w":{0},"w":{1}}}"#,
                entry("F32", "[2]", 0, 8),
                entry("F32", "[2]", 8, 16)
            ),
            "two tensors named w",
        ),
        ("[1]".to_string(), "the header"),
    ] {
        let disk = FaultyDisk::new();
        let mut bytes = (text.len() as u64).to_le_bytes().to_vec();
        bytes.extend(text.as_bytes());
        bytes.extend([0; 16]);
        disk.create(Path::new("/f")).expect("create").write_all(&bytes).expect("write");
        let refused = TensorFileReader::open(&disk, Path::new("/f")).err().expect("refused");
        assert!(refused.to_string().contains(complaint), "{text}: {refused}");
    }
}

#[test]
#[should_panic(expected = "bytes written")]
fn a_tensor_file_holds_what_it_announced() {
    let spec = TensorSpec { name: "w".into(), dtype: DType::F32, shape: vec![2] };
    let disk = FaultyDisk::new();
    let none = BTreeMap::new();
    let mut writer =
        TensorFileWriter::create(&disk, Path::new("/f"), &[spec], &none).expect("create");
    writer.write(&[0; 7]).expect("write");
    let _short = writer.finish();
}

#[test]
fn metadata_goes_into_the_header() {
    let metadata = BTreeMap::from([("format".to_string(), "pt".to_string())]);
    let bytes = header(&[], &metadata);
    let (_, read) = SafeTensors::read_metadata(&bytes).expect("the crate reads it");
    assert_eq!(read.metadata().as_ref().expect("there")["format"], "pt");
    assert!(bytes.len().is_multiple_of(64));
}

/// A disk with steps 1 and 2, and the path of 2.
fn two_checkpoints() -> (FaultyDisk, Store, PathBuf) {
    let disk = FaultyDisk::new();
    let store = store(&disk, SETTINGS);
    save(&store, 1, 1).expect("save");
    let path = save(&store, 2, 2).expect("save").path;
    (disk, store, path)
}

#[test]
fn a_flipped_bit_in_any_file_is_found_and_named() {
    let (disk, _, path) = two_checkpoints();
    for name in disk.list(&path).expect("list") {
        let file = path.join(&name);
        let size = disk.size(&file).expect("size");
        let stride = if name == MANIFEST { 1 } else { 97 };
        for byte in (0..size).step_by(stride) {
            let bad = disk.copy();
            bad.flip_bit(&file, byte, (byte % 8) as u8);
            let search = store(&bad, SETTINGS).find_newest_good().expect("search");
            assert_eq!(search.newest.expect("the older one").manifest.step, 1);
            let complaint = search.damaged[0].to_string();
            assert!(complaint.contains(&name), "{name} byte {byte}: {complaint}");
            let slot = empty_slot(&layout(64), 0);
            let refused = load(&bad, &path, &slot, 1, Contents::All, 1).expect_err("damaged");
            assert!(refused.is_damage() && refused.to_string().contains(&name), "{refused}");
            assert!(slot.head().is_err(), "a slot half filled is not committed");
        }
    }
}

#[test]
fn a_flipped_bit_in_a_tensor_names_the_tensor() {
    let (disk, _, path) = two_checkpoints();
    let manifest = Manifest::read(&disk, &path).expect("manifest");
    for file in &manifest.files {
        let last = TensorFileReader::open(&disk, &path.join(&file.name)).expect("open");
        let last = last.tensors().last().expect("not empty").name.clone();
        let bad = disk.copy();
        bad.flip_bit(&path.join(&file.name), file.bytes - 1, 7);
        let complaint = verify(&bad, &path, 1).expect_err("damaged").to_string();
        assert!(complaint.contains(&format!("tensor {last} does not match")), "{complaint}");
        let slot = empty_slot(&layout(64), 0);
        let complaint = load(&bad, &path, &slot, 1, Contents::All, 1).expect_err("damaged");
        assert!(complaint.to_string().contains(&format!("tensor {last} ")), "{complaint}");
    }
}

#[test]
fn missing_and_short_files_are_found_and_named() {
    let (disk, _, path) = two_checkpoints();
    for name in disk.list(&path).expect("list") {
        let file = path.join(&name);
        let gone = disk.copy();
        gone.rename(&file, &path.join("elsewhere")).expect("rename");
        let short = disk.copy();
        let bytes = disk.read(&file).expect("read");
        short.create(&file).expect("create").write_all(&bytes[1..]).expect("write");
        for (bad, complaint) in [(gone, "is missing"), (short, "")] {
            let search = store(&bad, SETTINGS).find_newest_good().expect("search");
            assert_eq!(search.newest.expect("the older one").manifest.step, 1);
            let found = search.damaged[0].to_string();
            assert!(found.contains(&name) && found.contains(complaint), "{found}");
            let summary = inspect(&bad, &path);
            let listed = summary.is_err() || summary.is_ok_and(|s| s.damaged == [name.clone()]);
            assert!(listed, "inspect says it too: {name}");
        }
    }
}

#[test]
fn a_bad_byte_while_saving_fails_the_save_and_no_more() {
    let disk = FaultyDisk::new();
    let store = store(&disk, SETTINGS);
    save(&store, 1, 1).expect("save");
    let temporary = Path::new(ROOT).join(".step-00000002.tmp");
    disk.flip_bit(&temporary.join("optimizer-00001.safetensors"), 20, 3);
    let failed = save(&store, 2, 2).expect_err("read back wrongly");
    assert!(failed.to_string().contains("optimizer-00001.safetensors"), "{failed}");
    assert_eq!(disk.list(Path::new(ROOT)).expect("list"), ["step-00000001"]);
}

#[test]
fn a_full_disk_fails_the_save_and_no_more() {
    let (disk, store, _) = two_checkpoints();
    let used = u64::MAX - disk.free_space(Path::new("/")).expect("free");
    disk.set_capacity(used + 1000);
    let failed = save(&store, 3, 3).expect_err("no space");
    assert!(matches!(failed, CheckpointError::Full { .. }), "{failed}");
    let said = ", of which 16.0 MiB are a reserve for the file system, and 1000 B are free";
    assert!(failed.to_string().ends_with(said), "{failed}");
    assert_eq!(store.steps().expect("steps"), [1, 2]);
    let search = store.find_newest_good().expect("search");
    assert_eq!(search.newest.expect("found").manifest.step, 2);
    assert!(search.damaged.is_empty());
}

#[test]
fn another_layout_is_an_error_and_not_damage() {
    let (disk, store, path) = two_checkpoints();
    let mut manifest = Manifest::read(&disk, &path).expect("manifest");
    let rewrite = |manifest: &mut Manifest| {
        let hashes: Vec<_> = manifest
            .tensors
            .iter()
            .map(|t| blake3::Hash::from_hex(&t.blake3).expect("a hash"))
            .collect();
        let digest = crate::snapshot::digest::combine(hashes.iter(), &manifest.cursor);
        manifest.digest = digest.to_hex().to_string();
        let bytes = manifest.seal();
        disk.create(&path.join(MANIFEST)).expect("create").write_all(&bytes).expect("write");
        let slot = empty_slot(&layout(64), 0);
        let refused = store.load_good_at_most(u64::MAX, &slot, 1).expect_err("another layout");
        assert!(matches!(refused, CheckpointError::Layout { .. }), "{refused}");
        refused.to_string()
    };
    let embedding = manifest.tensors.iter().position(|t| t.name == "embedding").expect("there");
    manifest.tensors[embedding].shape = vec![16, 50];
    let said = rewrite(&mut manifest);
    assert!(said.contains("embedding is f32 [16, 50], and this run's is f32 [50, 16]"), "{said}");
    let taken = manifest.tensors.remove(embedding);
    let said = rewrite(&mut manifest);
    assert!(said.contains("it has no tensor embedding"), "{said}");
    manifest.tensors.insert(embedding, taken.clone());
    manifest.tensors[embedding].shape = vec![50, 16];
    manifest.tensors.push(crate::checkpoint::TensorEntry { name: "zz".into(), ..taken });
    let said = rewrite(&mut manifest);
    assert!(said.contains("a tensor zz, which this run has not"), "{said}");
}

#[test]
fn the_model_alone_can_be_loaded() {
    let (disk, _, path) = two_checkpoints();
    let manifest = Manifest::read(&disk, &path).expect("manifest");
    for file in manifest.files.iter().filter(|f| f.name.starts_with("optimizer-")) {
        disk.rename(&path.join(&file.name), &path.join("elsewhere")).expect("rename");
    }
    let run_layout = layout(64);
    let slot = empty_slot(&run_layout, 0);
    fill(&slot, 9, 9);
    load(&disk, &path, &slot, 1, Contents::Model, 1).expect("the model is whole");
    let (original, view) = (filled_slot(&run_layout, 2, 2), slot.view().expect("committed"));
    for tensor in run_layout.tensors() {
        match tensor.name.contains("exp_avg") {
            true => assert!(view.bytes(tensor).iter().all(|b| *b == 0), "{}", tensor.name),
            false => {
                let expected = original.view().expect("view").bytes(tensor).to_vec();
                assert_eq!(view.bytes(tensor), expected, "{}", tensor.name);
            }
        }
    }
    assert_eq!(view.head().digest, None, "a part of a state has no digest");
}

fn kept(settings: StoreSettings, steps: impl Iterator<Item = u64>) -> Vec<u64> {
    let disk = FaultyDisk::new();
    let store = store(&disk, settings);
    for step in steps {
        save(&store, step, 1).expect("save");
        store.retain(step, u64::MAX).expect("retain");
    }
    store.steps().expect("steps")
}

#[test]
fn the_last_and_every_so_many_stay() {
    let with = |keep_last, keep_every| StoreSettings { keep_last, keep_every, ..SETTINGS };
    assert_eq!(kept(with(2, 0), 1..=9), [8, 9]);
    assert_eq!(kept(with(2, 4), 1..=9), [4, 8, 9]);
    assert_eq!(kept(with(1, 3), 1..=9), [3, 6, 9]);
    assert_eq!(kept(with(0, 0), 1..=3), [3], "the newest always stays");
    assert_eq!(kept(with(1, 0), [10, 20, 15].into_iter()), [15, 20], "so does the one just saved");
    assert_eq!(kept(with(1, 0), 0..=3), [0, 3], "what came from elsewhere cannot be made again");
}

#[test]
fn the_best_by_held_out_loss_stay() {
    let disk = FaultyDisk::new();
    let log = Path::new("/run/log.jsonl");
    let store = store(&disk, StoreSettings { keep_last: 1, keep_best: 2, ..SETTINGS });
    let store = store.with_log(log.into());
    let line = |step: u64, task: &str, loss: f64| {
        let loss = if loss.is_nan() { "null".to_owned() } else { loss.to_string() };
        format!(
            "{{\"kind\":\"evaluate\",\"step\":{step},\"task\":\"{task}\",\"loss\":{loss},\
             \"perplexity\":1.0,\"bits_per_byte\":null,\"targets\":1}}\n"
        )
    };
    let losses = [3.0, 1.0, f64::NAN, 2.0, 2.5, 2.0, 9.0];
    let mut text = String::new();
    for (step, loss) in (1..).zip(losses) {
        save(&store, step, 1).expect("save");
        store.retain(step, u64::MAX).expect("retain");
        // The evaluation of the newest may be logged after it was saved; other tasks do not count.
        text += &(line(step, "held_out", loss) + &line(step, "other", -loss));
        replace(&disk, log, text.as_bytes()).expect("write");
    }
    assert_eq!(store.steps().expect("steps"), [2, 6, 7], "of equal ones the later");
}

#[test]
fn damaged_checkpoints_do_not_push_good_ones_out() {
    let (disk, _, path) = two_checkpoints();
    disk.rename(&path.join(MANIFEST), &path.join("elsewhere")).expect("rename");
    let store = store(&disk, StoreSettings { keep_last: 2, ..SETTINGS });
    save(&store, 3, 3).expect("save");
    assert_eq!(store.retain(3, u64::MAX).expect("retain"), Vec::<u64>::new());
    save(&store, 4, 4).expect("save");
    assert_eq!(store.retain(4, u64::MAX).expect("retain"), [1]);
    assert_eq!(store.steps().expect("steps"), [2, 3, 4], "the damaged one stays to be looked at");
}

#[test]
fn a_roll_back_gives_up_the_future() {
    let (_, store, _) = two_checkpoints();
    save(&store, 3, 3).expect("save");
    assert_eq!(store.discard_after(1).expect("discard"), [2, 3]);
    assert_eq!(store.find_newest_good().expect("search").newest.expect("1").manifest.step, 1);
}

#[test]
fn a_damaged_future_is_put_aside_and_kept() {
    let (disk, store, _) = two_checkpoints();
    for again in 1..=2 {
        save(&store, 3, 3).expect("save");
        let aside = Path::new(ROOT).join(format!("damaged-{again}-step-00000003"));
        assert_eq!(store.set_aside_after(2).expect("put aside"), std::slice::from_ref(&aside));
        assert!(verify(&disk, &aside, 1).is_ok(), "it is there, whole, to be looked at");
        assert_eq!(store.steps().expect("steps"), [1, 2]);
        store.recover().expect("recover");
        assert!(disk.exists(&aside), "it is no leftover");
    }
}

#[test]
fn a_start_clears_leftovers_and_nothing_else() {
    let (disk, store, path) = two_checkpoints();
    let root = Path::new(ROOT);
    for name in [".step-00000003.tmp", ".step-00000001.gone.tmp", "notes", ".step-00000001.old"] {
        disk.create_folders(&root.join(name)).expect("folder");
    }
    disk.rename(&path, &root.join(".step-00000002.old")).expect("a replacement that stopped");
    let removed = store.recover().expect("recover");
    assert_eq!(removed, [".step-00000001.gone.tmp", ".step-00000001.old", ".step-00000003.tmp"]);
    assert_eq!(disk.list(root).expect("list"), ["notes", "step-00000001", "step-00000002"]);
    assert_eq!(store.find_newest_good().expect("search").newest.expect("2").manifest.step, 2);
}

#[test]
fn a_summary_tells_what_is_inside() {
    let (disk, _, path) = two_checkpoints();
    let summary = inspect(&disk, &path).expect("inspect");
    let trained = 50 * 16 + 16 * 48 + 3 + 1;
    assert_eq!(summary.optimizer_elements, 2 * trained);
    assert_eq!(summary.model_elements, trained + 35 + 5 + 5);
    assert_eq!(
        summary.tensors,
        BTreeMap::from([("bf16".to_string(), 1), ("f32".to_string(), 13), ("i64".to_string(), 1),])
    );
    assert!(summary.damaged.is_empty() && summary.step == 2);
    let json = serde_json::to_value(&summary).expect("JSON");
    assert_eq!(json["cursor"], cursor(2));
    assert_eq!(json["saved_unix_ms"], 77);
}

#[test]
fn odd_names_are_no_checkpoints() {
    let disk = FaultyDisk::new();
    let store = store(&disk, SETTINGS);
    assert!(store.steps().expect("no folder yet").is_empty());
    for name in ["step-1", "step-000000x1", "step-+0000001", "step-123456789", "other"] {
        disk.create_folders(&Path::new(ROOT).join(name)).expect("folder");
    }
    assert_eq!(store.steps().expect("steps"), [123_456_789]);
}
