//! What a parameter is for, as its name says.
//!
//! Models of every family keep to these names, so that the optimizer's groups work for all.

/// The part that a parameter plays.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Rows of tokens; the head too, if it is tied.
    Embedding,
    /// Rows of positions.
    Position,
    /// Weights of norms.
    Norm,
    /// Biases, those of norms included.
    Bias,
    /// The output layer, if it is not the embedding.
    Head,
    /// All other weights: those of linear layers.
    Matrix,
}

impl Role {
    /// All of them.
    pub const ALL: [Self; 6] =
        [Self::Embedding, Self::Position, Self::Norm, Self::Bias, Self::Head, Self::Matrix];

    /// Its name in configurations.
    pub fn name(self) -> &'static str {
        match self {
            Self::Embedding => "embeddings",
            Self::Position => "positions",
            Self::Norm => "norms",
            Self::Bias => "biases",
            Self::Head => "head",
            Self::Matrix => "matrices",
        }
    }

    /// The role of that name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|role| role.name() == name)
    }

    /// The role of a parameter, by its dotted path.
    pub fn of(parameter: &str) -> Self {
        let (path, kind) = parameter.rsplit_once('.').unwrap_or(("", parameter));
        let module = path.rsplit_once('.').map_or(path, |(_, module)| module);
        match (kind, module) {
            ("bias", _) => Self::Bias,
            (_, "embedding") => Self::Embedding,
            (_, "positions") => Self::Position,
            (_, "head") => Self::Head,
            (_, module) if module.ends_with("norm") => Self::Norm,
            _ => Self::Matrix,
        }
    }
}
