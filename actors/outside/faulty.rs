//! A disk in memory that fails by plan: full, torn, crashed, a flipped bit. For tests of any crate.
//!
//! Owns its files. It keeps apart what was written and what survives a power failure: contents
//! become durable by [`DiskFile::sync`], names by [`Disk::sync_folder`], nothing else. After a
//! crash every operation fails until [`FaultyDisk::reboot`]. Not for production.
//!
//! The lock stands for the kernel's own: the disk is shared by the whole simulated machine.

use std::collections::BTreeMap;
use std::io;
use std::path::{Component, Path, PathBuf};
use std::sync::{Arc, RwLock, RwLockReadGuard, RwLockWriteGuard};

use crate::outside::{Disk, DiskError, DiskFile, DiskReader};

/// When a planned trouble comes. Counting starts at 0 when the disk is made and at
/// [`FaultyDisk::reboot`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moment {
    /// At the n-th operation that changes the disk: create, write, sync, rename, remove.
    Operation(u64),
    /// At the n-th write.
    Write(u64),
}

/// What goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trouble {
    /// This operation fails with "no space left"; later ones work.
    Full,
    /// The machine stops before this operation.
    Crash,
    /// Half of the bytes of this write are taken, then the machine stops.
    Torn,
}

/// What a crash takes with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Loss {
    /// Nothing: only the process died. What was not synced may still be lost by a later crash.
    Nothing,
    /// Everything that was not synced.
    Unsynced,
    /// Unsynced contents; names are all there.
    Contents,
    /// Unsynced names; contents are all there.
    Names,
    /// Each unsynced file and folder by a coin; files may keep a part of what was added.
    Random {
        /// Of the coins.
        seed: u64,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Node {
    File(usize),
    Folder(usize),
}

#[derive(Debug, Clone, Default)]
struct Cached<T> {
    seen: T,
    durable: T,
}

type Names = BTreeMap<String, Node>;

#[derive(Debug)]
struct World {
    files: Vec<Cached<Vec<u8>>>,
    /// The root is number 0.
    folders: Vec<Cached<Names>>,
    plan: Vec<(Moment, Trouble)>,
    flips: Vec<(PathBuf, u64, u8)>,
    operations: u64,
    writes: u64,
    capacity: u64,
    crashed: bool,
}

/// The disk. Clones are the same disk.
#[derive(Debug, Clone)]
pub struct FaultyDisk {
    world: Arc<RwLock<World>>,
}

impl Default for FaultyDisk {
    fn default() -> Self {
        Self::new()
    }
}

impl FaultyDisk {
    /// An empty disk without faults or limits.
    pub fn new() -> Self {
        let world = World {
            files: Vec::new(),
            folders: vec![Cached::default()],
            plan: Vec::new(),
            flips: Vec::new(),
            operations: 0,
            writes: 0,
            capacity: u64::MAX,
            crashed: false,
        };
        Self { world: Arc::new(RwLock::new(world)) }
    }

    /// A second disk with the same files and plan.
    pub fn copy(&self) -> Self {
        let world = self.look();
        let copy = World {
            files: world.files.clone(),
            folders: world.folders.clone(),
            plan: world.plan.clone(),
            flips: world.flips.clone(),
            ..*world
        };
        Self { world: Arc::new(RwLock::new(copy)) }
    }

    /// Plans a trouble.
    pub fn plan(&self, moment: Moment, trouble: Trouble) {
        self.change().plan.push((moment, trouble));
    }

    /// From now on bit `bit` of byte `byte` of that file reads wrongly.
    pub fn flip_bit(&self, path: &Path, byte: u64, bit: u8) {
        self.change().flips.push((path.to_path_buf(), byte, 1 << bit));
    }

    /// All files together may hold this many bytes.
    pub fn set_capacity(&self, bytes: u64) {
        self.change().capacity = bytes;
    }

    /// Operations so far that change the disk.
    pub fn operations(&self) -> u64 {
        self.look().operations
    }

    /// Writes so far.
    pub fn writes(&self) -> u64 {
        self.look().writes
    }

    /// Whether it has crashed.
    pub fn crashed(&self) -> bool {
        self.look().crashed
    }

    /// Crashes if it has not yet, loses what `loss` says, and starts again without plan and flips.
    pub fn reboot(&self, loss: Loss) {
        let mut guard = self.change();
        let world = &mut *guard;
        let mut coins = match loss {
            Loss::Random { seed } => seed,
            _ => 0,
        };
        for file in &mut world.files {
            match loss {
                Loss::Nothing => continue,
                Loss::Names => {}
                Loss::Unsynced | Loss::Contents => file.seen = file.durable.clone(),
                Loss::Random { .. } => lose_part(file, &mut coins),
            }
            file.durable = file.seen.clone();
        }
        for folder in &mut world.folders {
            match loss {
                Loss::Nothing => continue,
                Loss::Contents => {}
                Loss::Random { .. } if toss(&mut coins).is_multiple_of(2) => {}
                Loss::Unsynced | Loss::Names | Loss::Random { .. } => {
                    folder.seen = folder.durable.clone();
                }
            }
            folder.durable = folder.seen.clone();
        }
        (world.plan, world.flips) = (Vec::new(), Vec::new());
        (world.operations, world.writes, world.crashed) = (0, 0, false);
    }

    fn look(&self) -> RwLockReadGuard<'_, World> {
        self.world.read().expect("no holder of the lock panics")
    }

    fn change(&self) -> RwLockWriteGuard<'_, World> {
        self.world.write().expect("no holder of the lock panics")
    }

    fn open_to_write(&self, path: &Path, empty: bool) -> Result<Box<dyn DiskFile>, DiskError> {
        let mut world = self.change();
        world.begin("create", path, false)?;
        let (folder, name) = world.parent("create", path)?;
        let number = match world.folders[folder].seen.get(&name) {
            Some(Node::Folder(_)) => {
                return Err(error("create", path, io::ErrorKind::IsADirectory));
            }
            Some(Node::File(number)) => *number,
            None => {
                world.files.push(Cached::default());
                let number = world.files.len() - 1;
                world.folders[folder].seen.insert(name, Node::File(number));
                number
            }
        };
        if empty {
            world.files[number].seen.clear();
        }
        Ok(Box::new(Handle { disk: self.clone(), path: path.to_path_buf(), number, next: 0 }))
    }
}

/// The durable bytes, and a random part of those that were added since.
fn lose_part(file: &mut Cached<Vec<u8>>, coins: &mut u64) {
    if file.seen.starts_with(&file.durable) {
        let added = file.seen.len() - file.durable.len();
        let kept = (toss(coins) % (added as u64 + 1)) as usize;
        file.seen.truncate(file.durable.len() + kept);
    } else if toss(coins).is_multiple_of(2) {
        file.seen = file.durable.clone();
    }
}

/// SplitMix64.
fn toss(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let z = (*state ^ (*state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

fn error(operation: &'static str, path: &Path, kind: io::ErrorKind) -> DiskError {
    DiskError { operation, path: path.to_path_buf(), why: kind.into() }
}

fn crash(operation: &'static str, path: &Path) -> DiskError {
    DiskError { operation, path: path.to_path_buf(), why: io::Error::other("simulated crash") }
}

/// The names of a path, from the root.
fn names(path: &Path) -> Vec<String> {
    path.components()
        .filter_map(|c| match c {
            Component::Normal(name) => Some(name.to_string_lossy().into_owned()),
            _ => None,
        })
        .collect()
}

impl World {
    /// Counts a change and lets a planned trouble happen. True: tear this write.
    fn begin(
        &mut self,
        operation: &'static str,
        path: &Path,
        write: bool,
    ) -> Result<bool, DiskError> {
        self.alive(operation, path)?;
        let (operations, writes) = (self.operations, self.writes);
        self.operations += 1;
        self.writes += u64::from(write);
        let now = |moment: Moment| match moment {
            Moment::Operation(n) => n == operations,
            Moment::Write(n) => write && n == writes,
        };
        match self.plan.iter().find(|(moment, _)| now(*moment)).map(|(_, trouble)| *trouble) {
            None => Ok(false),
            Some(Trouble::Full) => Err(error(operation, path, io::ErrorKind::StorageFull)),
            Some(Trouble::Torn) if write => Ok(true),
            Some(Trouble::Crash | Trouble::Torn) => {
                self.crashed = true;
                Err(crash(operation, path))
            }
        }
    }

    fn alive(&self, operation: &'static str, path: &Path) -> Result<(), DiskError> {
        if self.crashed { Err(crash(operation, path)) } else { Ok(()) }
    }

    fn find(&self, operation: &'static str, path: &Path) -> Result<Node, DiskError> {
        let mut node = Node::Folder(0);
        for name in names(path) {
            let Node::Folder(number) = node else {
                return Err(error(operation, path, io::ErrorKind::NotADirectory));
            };
            let next = self.folders[number].seen.get(&name);
            node = *next.ok_or_else(|| error(operation, path, io::ErrorKind::NotFound))?;
        }
        Ok(node)
    }

    fn folder(&self, operation: &'static str, path: &Path) -> Result<usize, DiskError> {
        match self.find(operation, path)? {
            Node::Folder(number) => Ok(number),
            Node::File(_) => Err(error(operation, path, io::ErrorKind::NotADirectory)),
        }
    }

    fn file(&self, operation: &'static str, path: &Path) -> Result<usize, DiskError> {
        match self.find(operation, path)? {
            Node::File(number) => Ok(number),
            Node::Folder(_) => Err(error(operation, path, io::ErrorKind::IsADirectory)),
        }
    }

    /// The folder that holds (or will hold) the path, and its last name.
    fn parent(&self, operation: &'static str, path: &Path) -> Result<(usize, String), DiskError> {
        let name = names(path).pop();
        let name = name.ok_or_else(|| error(operation, path, io::ErrorKind::InvalidInput))?;
        Ok((self.folder(operation, path.parent().unwrap_or(Path::new("")))?, name))
    }

    /// Removes all that is below a folder. Each folder is a list of names of its own, so a power
    /// failure may keep this and lose what was done to the names above.
    fn empty(&mut self, folder: usize) {
        for node in std::mem::take(&mut self.folders[folder].seen).into_values() {
            if let Node::Folder(number) = node {
                self.empty(number);
            }
        }
    }

    /// Bytes of all files below a folder.
    fn used(&self, folder: usize) -> u64 {
        let nodes = self.folders[folder].seen.values();
        nodes
            .map(|node| match node {
                Node::File(number) => self.files[*number].seen.len() as u64,
                Node::Folder(number) => self.used(*number),
            })
            .sum()
    }
}

struct Handle {
    disk: FaultyDisk,
    path: PathBuf,
    number: usize,
    /// Where a reader stands.
    next: usize,
}

impl DiskFile for Handle {
    fn write_all(&mut self, bytes: &[u8]) -> Result<(), DiskError> {
        let mut guard = self.disk.change();
        let world = &mut *guard;
        let torn = world.begin("write", &self.path, true)?;
        let free = world.capacity.saturating_sub(world.used(0));
        let limit = if torn { bytes.len() as u64 / 2 } else { bytes.len() as u64 };
        let stored = limit.min(free) as usize;
        world.files[self.number].seen.extend_from_slice(&bytes[..stored]);
        if torn {
            world.crashed = true;
            return Err(crash("write", &self.path));
        }
        if stored < bytes.len() {
            return Err(error("write", &self.path, io::ErrorKind::StorageFull));
        }
        Ok(())
    }

    fn sync(&mut self) -> Result<(), DiskError> {
        let mut world = self.disk.change();
        world.begin("sync", &self.path, false)?;
        let file = &mut world.files[self.number];
        file.durable = file.seen.clone();
        Ok(())
    }
}

impl DiskReader for Handle {
    fn read(&mut self, buffer: &mut [u8]) -> Result<usize, DiskError> {
        let world = self.disk.look();
        world.alive("read", &self.path)?;
        let rest = &world.files[self.number].seen[self.next..];
        let count = rest.len().min(buffer.len());
        buffer[..count].copy_from_slice(&rest[..count]);
        for (path, byte, mask) in &world.flips {
            let at = (*byte as usize).checked_sub(self.next).filter(|at| *at < count);
            if let Some(at) = at.filter(|_| *path == self.path) {
                buffer[at] ^= mask;
            }
        }
        self.next += count;
        Ok(count)
    }
}

impl Disk for FaultyDisk {
    fn create(&self, path: &Path) -> Result<Box<dyn DiskFile>, DiskError> {
        self.open_to_write(path, true)
    }

    fn append(&self, path: &Path) -> Result<Box<dyn DiskFile>, DiskError> {
        self.open_to_write(path, false)
    }

    fn open(&self, path: &Path) -> Result<Box<dyn DiskReader>, DiskError> {
        let world = self.look();
        world.alive("open", path)?;
        let number = world.file("open", path)?;
        Ok(Box::new(Handle { disk: self.clone(), path: path.to_path_buf(), number, next: 0 }))
    }

    fn read(&self, path: &Path) -> Result<Vec<u8>, DiskError> {
        let mut bytes = vec![0; self.size(path)? as usize];
        let count = self.open(path)?.read(&mut bytes)?;
        bytes.truncate(count);
        Ok(bytes)
    }

    fn size(&self, path: &Path) -> Result<u64, DiskError> {
        let world = self.look();
        world.alive("look at", path)?;
        Ok(world.files[world.file("look at", path)?].seen.len() as u64)
    }

    fn exists(&self, path: &Path) -> bool {
        let world = self.look();
        !world.crashed && world.find("look at", path).is_ok()
    }

    fn list(&self, folder: &Path) -> Result<Vec<String>, DiskError> {
        let world = self.look();
        world.alive("list", folder)?;
        Ok(world.folders[world.folder("list", folder)?].seen.keys().cloned().collect())
    }

    fn create_folders(&self, folder: &Path) -> Result<(), DiskError> {
        let mut world = self.change();
        world.begin("create folder", folder, false)?;
        let mut at = 0;
        for name in names(folder) {
            at = match world.folders[at].seen.get(&name) {
                Some(Node::Folder(number)) => *number,
                Some(Node::File(_)) => {
                    return Err(error("create folder", folder, io::ErrorKind::AlreadyExists));
                }
                None => {
                    world.folders.push(Cached::default());
                    let number = world.folders.len() - 1;
                    world.folders[at].seen.insert(name, Node::Folder(number));
                    number
                }
            };
        }
        Ok(())
    }

    fn rename(&self, from: &Path, to: &Path) -> Result<(), DiskError> {
        let mut world = self.change();
        world.begin("rename", from, false)?;
        let node = world.find("rename", from)?;
        let (source, source_name) = world.parent("rename", from)?;
        let (target, target_name) = world.parent("rename", to)?;
        match (node, world.folders[target].seen.get(&target_name)) {
            (_, None) | (Node::File(_), Some(Node::File(_))) => {}
            _ => return Err(error("rename", from, io::ErrorKind::DirectoryNotEmpty)),
        }
        world.folders[source].seen.remove(&source_name);
        world.folders[target].seen.insert(target_name, node);
        Ok(())
    }

    fn sync_folder(&self, folder: &Path) -> Result<(), DiskError> {
        let mut world = self.change();
        world.begin("sync", folder, false)?;
        let number = world.folder("sync", folder)?;
        let folder = &mut world.folders[number];
        folder.durable = folder.seen.clone();
        Ok(())
    }

    fn remove_dir_all(&self, folder: &Path) -> Result<(), DiskError> {
        let mut world = self.change();
        world.begin("remove", folder, false)?;
        let number = world.folder("remove", folder)?;
        let (parent, name) = world.parent("remove", folder)?;
        world.empty(number);
        world.folders[parent].seen.remove(&name);
        Ok(())
    }

    fn free_space(&self, path: &Path) -> Result<u64, DiskError> {
        let world = self.look();
        world.alive("measure", path)?;
        Ok(world.capacity.saturating_sub(world.used(0)))
    }
}
