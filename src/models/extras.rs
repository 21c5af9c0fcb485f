//! Losses that models add to those of their objectives, such as one that balances the load of
//! experts.
//!
//! Each is a mean over the tokens of a micro-batch, so that no rank changes it; a step takes the
//! mean over its micro-batches, times the weight of the track. Reports show it by name; evaluations
//! leave it out.

use octet_kernels::dtype::DType;
use octet_kernels::error::Result;
use octet_kernels::graph::{Graph, Tensor};
use octet_kernels::ops::add::add;
use octet_kernels::ops::fill::Fill;

/// The input of programs with extra losses: the weight of the track over its micro-batches.
pub const EXTRA_SCALE: &str = "extra_scale";

/// What models have added to a program.
#[derive(Debug, Default)]
pub struct Extras {
    training: bool,
    scale: Option<Tensor>,
    losses: Vec<Extra>,
}

#[derive(Debug)]
struct Extra {
    name: String,
    /// Times the scale.
    loss: Tensor,
    /// Without it.
    sum: Tensor,
}

impl Extras {
    /// Of a program that trains.
    pub(crate) fn training() -> Self {
        Self { training: true, ..Self::default() }
    }

    /// What a loss is multiplied by, `f32[]`.
    ///
    /// # Errors
    /// Never for a graph that is not full.
    pub fn scale(&mut self, g: &mut Graph<'_>) -> Result<Tensor> {
        if let Some(scale) = self.scale {
            return Ok(scale);
        }
        let scale = match self.training {
            true => g.input(EXTRA_SCALE, &[], DType::F32),
            false => g.apply_one(Fill { shape: Vec::new(), value: 1.0 }, &[])?,
        };
        self.scale = Some(scale);
        Ok(scale)
    }

    /// A loss under a name: times [`Self::scale`] and the model's own weight, and as it is shown.
    pub fn add(&mut self, name: &str, loss: Tensor, sum: Tensor) {
        self.losses.push(Extra { name: name.to_owned(), loss, sum });
    }

    /// Puts a name before those of what is added meanwhile.
    pub(super) fn within<R>(&mut self, name: &str, trace: impl FnOnce(&mut Self) -> R) -> R {
        let before = self.losses.len();
        let result = trace(self);
        for extra in self.losses.iter_mut().skip(before).filter(|_| !name.is_empty()) {
            extra.name = format!("{name}/{}", extra.name);
        }
        result
    }

    /// The loss of a program with all of these; fetches each.
    pub(crate) fn added_to(self, g: &mut Graph<'_>, mut loss: Tensor) -> Result<Tensor> {
        for extra in self.losses {
            loss = add(g, loss, extra.loss)?;
            g.fetch(&format!("{}.loss_sum", extra.name), extra.sum);
        }
        Ok(loss)
    }
}
