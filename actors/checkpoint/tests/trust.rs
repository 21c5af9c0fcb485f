//! What a manifest says of other files is believed only as far as it can be true, and what it says
//! of the run is in the log.

use std::path::Path;
use std::sync::Arc;

use super::{SETTINGS, save, store};
use crate::checkpoint::manifest::MANIFEST;
use crate::checkpoint::{CheckpointError, Manifest, Store, verify};
use crate::outside::Disk;
use crate::outside::faulty::{FaultyDisk, Loss};

/// Writes a manifest that is whole, with hashes that are right, but for what `change` does.
fn forged(change: impl FnOnce(&mut Manifest)) -> (FaultyDisk, Store) {
    let disk = FaultyDisk::new();
    let store = store(&disk, SETTINGS);
    save(&store, 8, 1).unwrap();
    let folder = store.folder(8);
    let mut manifest = Manifest::read(&disk, &folder).unwrap();
    change(&mut manifest);
    disk.create(&folder.join(MANIFEST)).unwrap().write_all(&manifest.seal()).unwrap();
    (disk, store)
}

#[test]
fn a_manifest_leads_nowhere_but_to_files_beside_it() {
    let outside = "/run/secret.safetensors";
    for name in ["../../secret.safetensors", outside, "a/../b", "..", ".", "", "a/", MANIFEST] {
        let (disk, store) = forged(|manifest| {
            let old = std::mem::replace(&mut manifest.files[0].name, name.to_owned());
            let of_file = manifest.tensors.iter_mut().filter(|tensor| tensor.file == old);
            of_file.for_each(|tensor| tensor.file = name.to_owned());
        });
        disk.create(Path::new(outside)).unwrap().write_all(b"secret").unwrap();
        let damage = verify(&disk, &store.folder(8), 1).unwrap_err();
        let CheckpointError::Damaged { path, what } = &damage else { panic!("{damage}") };
        assert_eq!(path, &store.folder(8).join(MANIFEST));
        assert_eq!(what, &format!("{name:?} is not the name of a file beside it"));
        // The search passes over it as over any other damage.
        let search = store.find_newest_good().unwrap();
        assert!(search.newest.is_none() && search.damaged.len() == 1);
    }
}

#[test]
fn a_manifest_that_contradicts_itself_is_damaged() {
    type Change = fn(&mut Manifest);
    let changes: [(Change, &str); 3] = [
        (|m| m.files[1].name = m.files[0].name.clone(), "twice"),
        (|m| m.tensors[0].file = "model-00099.safetensors".to_owned(), "not one of its files"),
        (|m| m.tensors[0].shape = vec![usize::MAX / 2, 3], "larger than any memory"),
    ];
    for (change, wanted) in changes {
        let (disk, store) = forged(change);
        let damage = verify(&disk, &store.folder(8), 1).unwrap_err().to_string();
        assert!(damage.contains(wanted), "{damage}");
    }
}

#[test]
fn the_log_is_on_the_disk_before_a_manifest_names_its_steps() {
    let log = Path::new("/run/log.jsonl");
    let disk = FaultyDisk::new();
    disk.create_folders(Path::new("/run")).unwrap();
    disk.create(log).unwrap().sync().unwrap();
    disk.sync_folder(Path::new("/run")).unwrap();
    disk.append(log).unwrap().write_all(b"step 8\n").unwrap();
    let bare = disk.copy();
    save(&store(&bare, SETTINGS), 8, 1).unwrap();
    bare.reboot(Loss::Unsynced);
    assert_eq!(bare.read(log).unwrap(), b"", "the test sees what it looks for");
    save(&store(&disk, SETTINGS).with_log(log.to_owned()), 8, 1).unwrap();
    disk.reboot(Loss::Unsynced);
    assert_eq!(disk.read(log).unwrap(), b"step 8\n");
    // A run without a log has none afterwards.
    let disk: Arc<dyn Disk> = Arc::new(FaultyDisk::new());
    let store = Store::new(disk.clone(), "/run/checkpoints", SETTINGS);
    save(&store.with_log(log.to_owned()), 8, 1).unwrap();
    assert!(!disk.exists(log));
}
