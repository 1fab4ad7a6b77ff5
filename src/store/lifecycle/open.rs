//! Opening a store: the folder, then its parts, each from those that it needs, then the threads.
//!
//! Everything here is short whatever the store holds. What it holds is counted later, in the background.

use super::count::Counter;
use super::upkeep::Upkeep;
use super::watch::Watch;
use crate::config::StoreSettings;
use crate::store::account::Space;
use crate::store::blobs::{BlobTable, Blobs, Documents, GiverRecords, LastUse};
use crate::store::disk::Disk;
use crate::store::error::OpenError;
use crate::store::evict::{Candidates, Evictor, Holds, Leftovers, Origins, Pins};
use crate::store::files::partials::Partials;
use crate::store::files::{Files, Opened, Opening};
use crate::store::index::Index;
use crate::store::integrity::{Inspector, Scrub};
use crate::store::jobs::{Jobs, Stop, Thread};
use crate::store::links::{Inventory, LinkReader, LinkWriter, Lists, Members, Membership, Pinning, References};
use crate::store::parts::Parts;
use crate::store::receive::Intake;
use crate::telemetry::Metrics;
use parking_lot::Mutex;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

pub(crate) fn open(settings: &StoreSettings, disk: &Arc<dyn Disk>, metrics: &Arc<Metrics>) -> Result<Parts, OpenError> {
    let at = Opening { path: settings.path.clone() };
    let opened = at.take(settings, disk, metrics)?;
    let jobs = Jobs::start(disk.patience(), metrics).map_err(|error| at.io("start the threads of", error))?;
    let base = Base::new(settings, disk, metrics, jobs, opened);
    let room = Room::new(settings, &base);
    let names = Names::new(&base, &room);
    let Background { counter, upkeep, watch, scrub } = Background::new(settings, &base, &room, &names);
    let parts = join(base, room, names, counter.counted.clone());
    let threads = [
        Thread::start("larder-watch", move || watch.run()),
        Thread::start("larder-upkeep", move || upkeep.run()),
        Thread::start("larder-scrub", move || scrub.run()),
    ];
    for thread in threads {
        parts.background.lock().push(thread.map_err(|error| at.io("start the threads of", error))?);
    }
    Ok(parts)
}

/// The parts that all others stand on.
struct Base {
    metrics: Arc<Metrics>,
    stop: Arc<Stop>,
    jobs: Arc<Jobs>,
    givers: Arc<GiverRecords>,
    blobs: Arc<Blobs>,
    documents: Arc<Documents>,
    index: Arc<Index>,
}

impl Base {
    fn new(settings: &StoreSettings, disk: &Arc<dyn Disk>, metrics: &Arc<Metrics>, jobs: Jobs, opened: Opened) -> Self {
        let limit = i64::try_from(opened.limit).unwrap_or(i64::MAX);
        metrics.store_limit_bytes.with_label_values(&[] as &[&str]).set(limit);
        let bytes = metrics.store_bytes.with_label_values(&[] as &[&str]);
        let space = Arc::new(Space::new(opened.limit, settings.min_free, bytes));
        let files = Arc::new(Files::new(disk.clone(), settings.sync, space));
        files.set_lock(Some(opened.lock));
        let table = Arc::new(BlobTable::new(metrics.store_objects.with_label_values(&["blob"])));
        let givers = Arc::new(GiverRecords::open(files.clone(), table.clone()));
        let blobs = Blobs::new(files, table, givers.clone(), jobs.readers.clone(), metrics.clone());
        blobs.set_suspect(opened.suspect);
        let blobs = Arc::new(blobs);
        let documents = Arc::new(Documents::new(blobs.clone()));
        let index = Arc::new(Index::start(disk, metrics, opened.limit));
        let (metrics, jobs, stop) = (metrics.clone(), Arc::new(jobs), Arc::default());
        Self { metrics, stop, jobs, givers, blobs, documents, index }
    }
}

/// What makes room, and what keeps content from being evicted.
struct Room {
    partials: Partials,
    last_use: Arc<LastUse>,
    pins: Arc<Pins>,
    holds: Arc<Holds>,
    origins: Arc<Origins>,
    leftovers: Arc<Leftovers>,
    evictor: Arc<Evictor>,
}

impl Room {
    fn new(settings: &StoreSettings, Base { blobs, metrics, .. }: &Base) -> Self {
        let partials = Partials::new(metrics.store_objects.with_label_values(&["ingest"]));
        let leftovers = Leftovers::new(blobs.files.clone(), partials.clone(), metrics.clone());
        leftovers.count_partials();
        leftovers.count_quarantine();
        let leftovers = Arc::new(leftovers);
        let last_use = Arc::new(LastUse::new(blobs.clone()));
        let pins = Arc::new(Pins::open(&settings.pin, &blobs.files));
        let holds = Arc::<Holds>::default();
        let origins = Arc::new(Origins::new(blobs.table.clone(), metrics.clone()));
        let candidates = Candidates {
            blobs: blobs.clone(),
            last_use: last_use.clone(),
            pins: pins.clone(),
            holds: holds.clone(),
            origins: origins.clone(),
        };
        let evictor = Arc::new(Evictor::new(candidates, leftovers.clone(), metrics.clone()));
        Self { partials, last_use, pins, holds, origins, leftovers, evictor }
    }
}

struct Names {
    reader: Arc<LinkReader>,
    inventory: Arc<Inventory>,
    writer: Arc<LinkWriter>,
    membership: Arc<Membership>,
    pinning: Arc<Pinning>,
    references: Arc<References>,
}

impl Names {
    fn new(base: &Base, Room { evictor, pins, origins, .. }: &Room) -> Self {
        let Base { blobs, documents, index, stop, metrics, .. } = base;
        let reader = Arc::new(LinkReader { files: blobs.files.clone(), documents: documents.clone() });
        let members = Arc::new(Members::default());
        let pinning = Arc::new(Pinning::new(evictor.clone(), reader.clone(), pins.clone(), stop.clone()));
        let inventory = Arc::new(Inventory { reader: reader.clone(), stop: stop.clone() });
        let references = References {
            blobs: blobs.clone(),
            reader: reader.clone(),
            inventory: inventory.clone(),
            pins: pins.clone(),
        };
        let membership = Membership { reader: reader.clone(), members: members.clone(), index: index.clone() };
        let writer = LinkWriter {
            evictor: evictor.clone(),
            reader: reader.clone(),
            members,
            pins: pins.clone(),
            pinning: pinning.clone(),
            origins: origins.clone(),
            index: index.clone(),
            tags: metrics.store_objects.with_label_values(&["tag"]),
            manifests: metrics.store_objects.with_label_values(&["manifest"]),
        };
        let (writer, membership, references) = (Arc::new(writer), Arc::new(membership), Arc::new(references));
        Self { reader, inventory, writer, membership, pinning, references }
    }
}

/// The parts that run in the background.
struct Background {
    counter: Arc<Counter>,
    upkeep: Upkeep,
    watch: Arc<Watch>,
    scrub: Scrub,
}

impl Background {
    fn new(settings: &StoreSettings, base: &Base, room: &Room, names: &Names) -> Self {
        let Base { metrics, stop, jobs, givers, blobs, index, .. } = base;
        let Room { last_use, origins, leftovers, evictor, .. } = room;
        let counter = Arc::new(Counter {
            blobs: blobs.clone(),
            reader: names.reader.clone(),
            pinning: names.pinning.clone(),
            origins: origins.clone(),
            index: index.clone(),
            tags: names.writer.tags.clone(),
            manifests: names.writer.manifests.clone(),
            stop: stop.clone(),
            counted: Arc::default(),
            recount: AtomicBool::new(false),
        });
        let upkeep = Upkeep {
            last_use: last_use.clone(),
            evictor: evictor.clone(),
            leftovers: leftovers.clone(),
            counter: counter.clone(),
        };
        let watch = Arc::new(Watch {
            settings: settings.clone(),
            jobs: jobs.clone(),
            givers: givers.clone(),
            leftovers: leftovers.clone(),
            counter: counter.clone(),
            metrics: metrics.clone(),
        });
        let scrub = Scrub {
            blobs: blobs.clone(),
            metrics: metrics.clone(),
            stop: stop.clone(),
            counted: counter.counted.clone(),
            rate: settings.scrub_rate,
        };
        Self { counter, upkeep, watch, scrub }
    }
}

fn join(base: Base, room: Room, names: Names, counted: Arc<AtomicBool>) -> Parts {
    let Base { metrics, stop, jobs, givers, blobs, documents, index } = base;
    let Room { partials, last_use, pins, holds, origins, evictor, .. } = room;
    let Names { reader, inventory, writer, membership, pinning, references } = names;
    let intake = Arc::new(Intake {
        jobs: jobs.clone(),
        evictor: evictor.clone(),
        partials,
        blobs: blobs.clone(),
        documents,
        givers: givers.clone(),
        metrics,
    });
    let inspector = Arc::new(Inspector::new(blobs.clone(), stop.clone()));
    let lists = Arc::new(Lists::new(blobs.files.clone(), evictor.clone()));
    Parts {
        stop,
        jobs,
        blobs,
        givers,
        intake,
        evictor,
        last_use,
        holds,
        origins,
        index,
        pins,
        reader,
        writer,
        inventory,
        membership,
        pinning,
        references,
        lists,
        inspector,
        counted,
        background: Mutex::default(),
    }
}
