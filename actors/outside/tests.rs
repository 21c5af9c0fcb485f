//! The real disk and the simulated one obey the same rules; the simulated one fails as planned.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use crate::outside::beating::BeatingDisk;
use crate::outside::faulty::{FaultyDisk, Loss, Moment, Trouble};
use crate::outside::{Clock, Disk, LocalDisk, ManualClock, PIECE_BYTES, SystemClock};

fn write(disk: &dyn Disk, path: &Path, bytes: &[u8]) {
    let mut file = disk.create(path).expect("create");
    file.write_all(bytes).expect("write");
    file.sync().expect("sync");
}

/// What both disks must do alike.
fn behaves_like_a_disk(disk: &dyn Disk, root: &Path) {
    let folder = root.join("a/b");
    disk.create_folders(&folder).expect("folders");
    disk.create_folders(&folder).expect("again");
    write(disk, &folder.join("two"), b"22");
    write(disk, &folder.join("one"), b"1");
    disk.append(&folder.join("one")).expect("append").write_all(b"11").expect("write");
    assert_eq!(disk.list(&folder).expect("list"), ["one", "two"]);
    assert_eq!(disk.read(&folder.join("one")).expect("read"), b"111");
    assert_eq!(disk.size(&folder.join("one")).expect("size"), 3);

    let mut reader = disk.open(&folder.join("one")).expect("open");
    let mut two = [0; 2];
    assert_eq!(reader.read(&mut two).expect("read"), 2);
    assert_eq!(reader.read(&mut two).expect("read"), 1);
    assert_eq!(reader.read(&mut two).expect("read"), 0);

    disk.rename(&folder.join("two"), &folder.join("one")).expect("rename over a file");
    assert_eq!(disk.read(&folder.join("one")).expect("read"), b"22");
    disk.sync_folder(&folder).expect("sync folder");
    disk.rename(&folder, &root.join("c")).expect("rename a folder");
    assert!(disk.exists(&root.join("c/one")) && !disk.exists(&folder));
    disk.create_folders(&root.join("d")).expect("folders");
    write(disk, &root.join("d/full"), b"x");
    disk.rename(&root.join("c"), &root.join("d")).expect_err("over a folder that is not empty");
    assert!(disk.free_space(&root.join("not/there")).expect("free") > 0);
    disk.remove_dir_all(&root.join("c")).expect("remove");
    assert!(!disk.exists(&root.join("c")));

    let missing = disk.read(&root.join("nowhere")).expect_err("no such file");
    assert!(missing.is_missing() && missing.to_string().contains("nowhere"), "{missing}");
    assert!(disk.list(&root.join("nowhere")).expect_err("no such folder").is_missing());
}

#[test]
fn the_local_disk_behaves() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    behaves_like_a_disk(&LocalDisk, folder.path());
}

#[test]
fn the_simulated_disk_behaves_the_same() {
    behaves_like_a_disk(&FaultyDisk::new(), Path::new("/run"));
}

/// A file synced under a synced name, more bytes, and a second file: both unsynced.
fn half_synced() -> FaultyDisk {
    let disk = FaultyDisk::new();
    write(&disk, Path::new("/old"), b"old");
    disk.sync_folder(Path::new("/")).expect("sync");
    disk.append(Path::new("/old")).expect("append").write_all(b"+").expect("write");
    write(&disk, Path::new("/new"), b"new");
    disk
}

#[test]
fn a_crash_takes_what_was_not_synced() {
    let after = |loss| {
        let disk = half_synced();
        disk.reboot(loss);
        let old = disk.read(Path::new("/old")).expect("synced");
        (String::from_utf8(old).expect("text"), disk.exists(Path::new("/new")))
    };
    assert_eq!(after(Loss::Nothing), ("old+".into(), true));
    assert_eq!(after(Loss::Unsynced), ("old".into(), false));
    assert_eq!(after(Loss::Contents), ("old".into(), true));
    assert_eq!(after(Loss::Names), ("old+".into(), false));
    let mut seen: Vec<_> = (0..64).map(|seed| after(Loss::Random { seed })).collect();
    seen.sort();
    seen.dedup();
    assert_eq!(seen.len(), 4, "each outcome comes up: {seen:?}");
}

#[test]
fn planned_troubles_come_when_planned() {
    let disk = FaultyDisk::new();
    disk.plan(Moment::Write(1), Trouble::Full);
    disk.plan(Moment::Write(3), Trouble::Torn);
    let path = Path::new("/f");
    let mut file = disk.create(path).expect("create");
    file.write_all(b"ab").expect("the first");
    assert!(file.write_all(b"xx").expect_err("the second").is_full());
    file.write_all(b"cd").expect("the third");
    let torn = file.write_all(b"efgh").expect_err("the fourth");
    assert!(!torn.is_full() && torn.to_string().contains("/f"), "{torn}");
    assert!(disk.crashed() && !disk.exists(path));
    disk.read(path).expect_err("the machine is down");
    disk.reboot(Loss::Nothing);
    assert_eq!(disk.read(path).expect("read"), b"abcdef");
    disk.flip_bit(path, 1, 0);
    assert_eq!(disk.read(path).expect("read"), b"accdef");
}

#[test]
fn a_full_disk_takes_what_fits() {
    let disk = FaultyDisk::new();
    disk.set_capacity(10);
    let mut file = disk.create(Path::new("/f")).expect("create");
    file.write_all(&[1; 7]).expect("fits");
    assert_eq!(disk.free_space(Path::new("/")).expect("free"), 3);
    assert!(file.write_all(&[2; 7]).expect_err("full").is_full());
    assert_eq!(disk.size(Path::new("/f")).expect("size"), 10);
}

#[test]
fn clocks_go_forward() {
    let clock = ManualClock::new();
    clock.advance(Duration::from_millis(1500));
    assert_eq!((clock.monotonic(), clock.unix_ms()), (Duration::from_millis(1500), 1500));
    let clock = SystemClock::new();
    let before = clock.monotonic();
    assert!(clock.monotonic() >= before && clock.unix_ms() > 1_700_000_000_000);
}

#[test]
fn a_disk_shows_life_at_every_piece_that_goes_through_it() {
    let beats = Arc::new(AtomicUsize::new(0));
    let seen = || beats.load(Ordering::Relaxed);
    let counted = beats.clone();
    let beat = move || {
        counted.fetch_add(1, Ordering::Relaxed);
    };
    let disk = BeatingDisk::new(Arc::new(FaultyDisk::new()), beat);
    let path = Path::new("/large");
    let mut file = disk.create(path).unwrap();
    let (chunk, pieces) = (vec![7; 1 << 20], 3);
    let begun = seen();
    for _ in 0..pieces * (PIECE_BYTES >> 20) {
        file.write_all(&chunk).unwrap();
    }
    assert_eq!(seen() - begun, pieces as usize);
    file.sync().unwrap();
    let mut reader = disk.open(path).unwrap();
    let (begun, mut buffer) = (seen(), chunk);
    while reader.read(&mut buffer).unwrap() > 0 {}
    assert_eq!(seen() - begun, pieces as usize);
    let begun = seen();
    disk.rename(path, Path::new("/other")).unwrap();
    assert_eq!(seen() - begun, 1);
}

#[test]
fn a_beating_disk_is_a_disk() {
    let folder = tempfile::tempdir().unwrap();
    behaves_like_a_disk(&BeatingDisk::new(Arc::new(LocalDisk), || ()), folder.path());
}

#[test]
fn what_is_written_in_pieces_is_whole() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("pieces");
    let mut file = LocalDisk.create(&path).unwrap();
    let chunk: Vec<u8> = (0..3 << 20).map(|i: u32| (i % 251) as u8).collect();
    let times = 3 * (PIECE_BYTES as usize) / chunk.len() + 1;
    for _ in 0..times {
        file.write_all(&chunk).unwrap();
    }
    file.sync().unwrap();
    let all = LocalDisk.read(&path).unwrap();
    assert!(all.len() == times * chunk.len() && all.chunks(chunk.len()).all(|c| c == chunk));
}
