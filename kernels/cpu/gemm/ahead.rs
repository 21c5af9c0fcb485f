//! Fetches what of A is packed next into the cache while the kernels run, a few lines before each.

use super::kernel::prefetch;
use super::pack::Window;
use super::{Floats, Matrix};

/// Elements of an A that a core's caches may hold from whoever made it: 2 MiB. Below that there is
/// nothing to gain.
const WARM_ELEMENTS: usize = 512 * 1024;

/// Elements of a cache line.
pub(super) const LINE: usize = 16;

/// The lines of a window of A that are still to be fetched.
pub(super) struct Ahead {
    /// Start of the stretch of memory that is being fetched, and the distance to the next.
    stretch: *const f32,
    stride: usize,
    /// Lines of a stretch, and how many of this one are fetched.
    stretch_lines: usize,
    line: usize,
    /// Lines left, and how many go with one call of a kernel.
    lines: usize,
    share: usize,
}

impl Ahead {
    /// For `calls` calls of kernels. Nothing if there is no window, or if A is small, strided or
    /// bf16.
    pub(super) fn new(a: &Matrix<'_>, next: Option<Window>, calls: usize) -> Self {
        let nothing = Self {
            stretch: std::ptr::null(),
            stride: 0,
            stretch_lines: 1,
            line: 0,
            lines: 0,
            share: 0,
        };
        let Some(Window { row, rows, column, columns }) = next else { return nothing };
        let Floats::F32(data) = a.data else { return nothing };
        let (stretches, length, stride) = match (a.row_stride, a.column_stride) {
            _ if data.len() < WARM_ELEMENTS => return nothing,
            (stride, 1) => (rows, columns, stride),
            (1, stride) => (columns, rows, stride),
            _ => return nothing,
        };
        let stretch = &raw const data[row * a.row_stride + column * a.column_stride];
        let stretch_lines = length.div_ceil(LINE);
        let lines = stretches * stretch_lines;
        Self { stretch, stride, stretch_lines, line: 0, lines, share: lines.div_ceil(calls) }
    }

    /// Fetches the share of one call.
    #[inline(always)]
    pub(super) fn fetch(&mut self) {
        let count = self.share.min(self.lines);
        self.lines -= count;
        for _ in 0..count {
            prefetch(self.stretch.wrapping_add(LINE * self.line));
            self.line += 1;
            if self.line == self.stretch_lines {
                self.line = 0;
                self.stretch = self.stretch.wrapping_add(self.stride);
            }
        }
    }
}
