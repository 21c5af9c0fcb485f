//! A shared library that stays loaded, and its functions by name.
//!
//! Prohibition: nothing is ever unloaded. NVIDIA's libraries start threads and exit handlers, which
//! do not survive that their code is taken away.

use std::ffi::{CStr, CString, c_void};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::ptr::NonNull;

/// An opened library. A copy is the same library.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Library {
    handle: NonNull<c_void>,
}

// SAFETY: a handle that is never closed; the system's loader has its own lock.
unsafe impl Send for Library {}
// SAFETY: as above.
unsafe impl Sync for Library {}

impl Library {
    /// Opens a file by its path, or by a plain name wherever the system's loader finds that.
    ///
    /// # Errors
    /// What the loader says.
    pub fn open(path: &Path) -> Result<Self, String> {
        let name = CString::new(path.as_os_str().as_bytes()).map_err(|error| error.to_string())?;
        // SAFETY: the name ends in a zero byte. What a library does when it is loaded is up to
        // whoever put it where NVIDIA's are looked for.
        let handle = unsafe { libc::dlopen(name.as_ptr(), libc::RTLD_NOW | libc::RTLD_LOCAL) };
        NonNull::new(handle).map(|handle| Self { handle }).ok_or_else(last_error)
    }

    /// The address of a function, if there is one of that name.
    pub fn function(self, name: &CStr) -> Option<NonNull<c_void>> {
        // SAFETY: the handle is open and the name ends in a zero byte.
        NonNull::new(unsafe { libc::dlsym(self.handle.as_ptr(), name.as_ptr()) })
    }

    /// The file that a function of some loaded library came from.
    pub fn file_of(function: NonNull<c_void>) -> Option<PathBuf> {
        // SAFETY: plain fields, for which zeros are valid.
        let mut info: libc::Dl_info = unsafe { std::mem::zeroed() };
        // SAFETY: writes one struct that lives longer than the call; any address may be asked for.
        let known = unsafe { libc::dladdr(function.as_ptr(), &raw mut info) };
        if known == 0 || info.dli_fname.is_null() {
            return None;
        }
        // SAFETY: a string of the loader, which stays as long as the library does.
        let name = unsafe { CStr::from_ptr(info.dli_fname) };
        Some(PathBuf::from(std::ffi::OsString::from_vec(name.to_bytes().to_vec())))
    }
}

fn last_error() -> String {
    // SAFETY: returns null or a string that stays until this thread's next call.
    let text = unsafe { libc::dlerror() };
    if text.is_null() {
        return "the system's loader does not say why".to_string();
    }
    // SAFETY: as above; it is copied at once.
    unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned()
}

/// Declares the functions that are used of a library, as a table that is filled when it is opened.
///
/// A result is an integer: a newer library may return numbers that no enumeration here has.
macro_rules! functions {
    (
        $(#[$about:meta])*
        $visibility:vis struct $table:ident {
            $($field:ident: $symbol:literal ($($argument:ty),* $(,)?) -> $result:ty;)+
        }
    ) => {
        $(#[$about])*
        #[derive(Debug, Clone, Copy)]
        $visibility struct $table {
            $(pub(crate) $field: unsafe extern "C" fn($($argument),*) -> $result,)+
        }

        impl $table {
            /// Names the first function that the library lacks.
            pub(crate) fn of(library: super::library::Library) -> Result<Self, String> {
                let function = |name: &std::ffi::CStr| {
                    let lacks = || format!("the library lacks {}", name.to_string_lossy());
                    library.function(name).ok_or_else(lacks)
                };
                Ok(Self {
                    // SAFETY: the symbol is a function of this signature in NVIDIA's header.
                    $($field: unsafe { std::mem::transmute::<
                        std::ptr::NonNull<std::ffi::c_void>,
                        unsafe extern "C" fn($($argument),*) -> $result,
                    >(function($symbol)?) },)+
                })
            }
        }
    };
}
pub(crate) use functions;
