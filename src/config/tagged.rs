//! Sections that are one of several kinds: `[model]` by `family`, `[objective]` by `kind`.
//!
//! Duty: one macro, so that a new model or objective is one line in its `mod.rs`. Reading goes
//! through a table instead of serde's tagged enums, which cannot refuse unknown keys beside shared
//! ones and have no default kind.

use serde::de::{DeserializeOwned, Error};
use toml::{Table, Value};

/// Takes a key out of a table.
///
/// # Errors
/// When it has another type.
pub(crate) fn take<T: DeserializeOwned, E: Error>(
    table: &mut Table,
    key: &str,
) -> Result<Option<T>, E> {
    let value = table.remove(key).map(Value::try_into).transpose();
    value.map_err(|error: toml::de::Error| E::custom(error.message()))
}

/// Defines an enum of configurations, each with a name in files, a struct of its own and a trait
/// that they share. The first one is the default.
macro_rules! tagged {
    (
        $(#[$meta:meta])*
        $enum:ident by $tag:literal as $trait:ident;
        $($(#[$variant_meta:meta])* $name:literal => $variant:ident($type:ty),)+
    ) => {
        $(#[$meta])*
        #[derive(Debug, Clone, PartialEq, serde::Serialize)]
        #[serde(tag = $tag)]
        pub enum $enum {
            $($(#[$variant_meta])* #[serde(rename = $name)] $variant($type),)+
        }

        impl $enum {
            /// The key that names the kind.
            pub const TAG: &str = $tag;
            /// All kinds; the first is the default.
            pub const NAMES: &[&str] = &[$($name),+];

            /// The keys of a kind, without the tag; `None` for an unknown kind.
            pub(crate) fn keys(name: &str) -> Option<&'static [&'static str]> {
                match name {
                    $($name => Some($crate::config::fields::fields_of::<$type>()),)+
                    _ => None,
                }
            }

            /// Reads a table that holds the tag, if it is not the default, and nothing else but the
            /// keys of that kind.
            pub(crate) fn from_table<E: serde::de::Error>(
                mut table: toml::Table,
            ) -> std::result::Result<Self, E> {
                let name: Option<String> = $crate::config::tagged::take(&mut table, $tag)?;
                let wrong = |error: toml::de::Error| E::custom(error.message());
                match name.as_deref().unwrap_or(Self::NAMES[0]) {
                    $($name => table.try_into().map(Self::$variant).map_err(wrong),)+
                    other => Err(E::unknown_variant(other, Self::NAMES)),
                }
            }

            /// Its kind in files.
            pub fn name(&self) -> &'static str {
                match self {
                    $(Self::$variant(_) => $name,)+
                }
            }

            /// What all kinds can do.
            pub fn get(&self) -> &dyn $trait {
                match self {
                    $(Self::$variant(inner) => inner,)+
                }
            }

            /// The same, to change it.
            pub fn get_mut(&mut self) -> &mut dyn $trait {
                match self {
                    $(Self::$variant(inner) => inner,)+
                }
            }
        }

        impl Default for $enum {
            fn default() -> Self {
                let empty = Self::from_table::<serde::de::value::Error>(toml::Table::new());
                empty.expect("every key of the default kind has a default")
            }
        }
    };
}

pub(crate) use tagged;
