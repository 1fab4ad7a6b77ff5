//! Moving content by disk: what a store holds goes out as an OCI image layout, and a layout comes in as verified content.
//!
//! * [`Scope`] says what is wanted; [`Plan`] is what that is in this store, with every size, before a byte is read.
//! * `index` makes `index.json` and `larder.json`; `tar` and `volumes` lay a plan out as archives that are the same bytes each time.
//! * `inventory` is the list of what a store holds, for a delta.
//!
//! A bundle is an ordinary image layout that standard tools read; `docs/air-gap.md` has the format. Nothing here reads a blob
//! past the store's read check, and nothing here writes to the operator's files: the command does.

mod arrival;
mod audit;
mod index;
mod inventory;
pub mod lists;
mod plan;
mod scope;
mod tar;
mod volumes;
mod warm;

pub use arrival::{Closure, Declared};
pub use audit::audit;
pub use index::{FORMAT, IMAGE_NAME, Index, Named, Notes, REF_NAME, REPOSITORY, VolumeNotes};
pub use inventory::{Have, InvalidInventory, Inventory};
pub use plan::{Item, Plan, PlanError, Sizes};
pub use scope::{Platforms, Scope};
pub use tar::{Content, Entry};
pub use volumes::{TooSmall, Volume, volumes};
pub use warm::{Extent, Planned, Progress, Warmed, tags_of, warm};
