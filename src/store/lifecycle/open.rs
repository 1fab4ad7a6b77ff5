//! Opening a store: the folder, then its parts, each from those that it needs, then the threads.
//!
//! Everything here is short whatever the store holds. What it holds is counted later, in the background.

use super::count::Counter;
use super::folder::{Opened, Opening};
use super::upkeep::Upkeep;
use super::watch::Watch;
use crate::config::StoreSettings;
use crate::store::account::Space;
use crate::store::blobs::{BlobTable, Blobs, Documents, GiverRecords, LastUse};
use crate::store::disk::Disk;
use crate::store::error::OpenError;
use crate::store::evict::{Candidates, Evictor, Holds, Leftovers, Origins, Pins};
use crate::store::files::Files;
use crate::store::files::partials::Partials;
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
    let base = Base::new(settings, disk, metrics, Arc::new(jobs), opened);
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
    files: Arc<Files>,
    space: Arc<Space>,
    table: Arc<BlobTable>,
    givers: Arc<GiverRecords>,
    blobs: Arc<Blobs>,
    documents: Arc<Documents>,
    index: Arc<Index>,
}

impl Base {
    fn new(
        settings: &StoreSettings,
        disk: &Arc<dyn Disk>,
        metrics: &Arc<Metrics>,
        jobs: Arc<Jobs>,
        opened: Opened,
    ) -> Self {
        let limit = i64::try_from(opened.limit).unwrap_or(i64::MAX);
        metrics.store_limit_bytes.with_label_values(&[] as &[&str]).set(limit);
        let bytes = metrics.store_bytes.with_label_values(&[] as &[&str]);
        let space = Arc::new(Space::new(opened.limit, settings.min_free, bytes));
        let files = Arc::new(Files::new(Arc::clone(disk), settings.sync, Arc::clone(&space)));
        files.set_lock(Some(opened.lock));
        let table = Arc::new(BlobTable::new(metrics.store_objects.with_label_values(&["blob"])));
        let givers = Arc::new(GiverRecords::open(files.clone(), table.clone()));
        let (readers, metrics) = (jobs.readers.clone(), metrics.clone());
        let blobs = Blobs::new(files.clone(), space.clone(), table.clone(), givers.clone(), readers, metrics.clone());
        blobs.set_suspect(opened.suspect);
        let blobs = Arc::new(blobs);
        let documents = Arc::new(Documents::new(files.clone(), blobs.clone()));
        let index = Arc::new(Index::start(disk, &metrics, opened.limit));
        Self { metrics, stop: Arc::default(), jobs, files, space, table, givers, blobs, documents, index }
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
    fn new(settings: &StoreSettings, base: &Base) -> Self {
        let Base { files, space, table, blobs, metrics, .. } = base;
        let partials = Partials::new(metrics.store_objects.with_label_values(&["ingest"]));
        let leftovers = Leftovers::new(files.clone(), space.clone(), partials.clone(), metrics.clone());
        leftovers.count_partials();
        leftovers.count_quarantine();
        let leftovers = Arc::new(leftovers);
        let last_use = Arc::new(LastUse::new(files.clone(), table.clone()));
        let pins = Arc::new(Pins::open(&settings.pin, files));
        let holds = Arc::<Holds>::default();
        let origins = Arc::new(Origins::new(table.clone(), metrics.clone()));
        let candidates = Candidates {
            table: table.clone(),
            space: space.clone(),
            last_use: last_use.clone(),
            pins: pins.clone(),
            holds: holds.clone(),
            origins: origins.clone(),
        };
        let (files, space, blobs, metrics) = (files.clone(), space.clone(), blobs.clone(), metrics.clone());
        let evictor = Arc::new(Evictor::new(files, space, blobs, candidates, leftovers.clone(), metrics));
        Self { partials, last_use, pins, holds, origins, leftovers, evictor }
    }
}

/// What reads and writes links.
struct Names {
    reader: Arc<LinkReader>,
    writer: Arc<LinkWriter>,
    membership: Arc<Membership>,
    pinning: Arc<Pinning>,
    inventory: Arc<Inventory>,
    references: Arc<References>,
    lists: Arc<Lists>,
}

impl Names {
    fn new(base: &Base, room: &Room) -> Self {
        let Base { files, table, blobs, documents, index, stop, metrics, .. } = base;
        let Room { evictor, pins, origins, .. } = room;
        let (files, evictor, documents) = (|| files.clone(), || evictor.clone(), || documents.clone());
        let reader = Arc::new(LinkReader::new(files(), documents()));
        let members = Arc::new(Members::default());
        let membership = Arc::new(Membership::new(files(), reader.clone(), members.clone(), index.clone()));
        let pinning = Arc::new(Pinning::new(files(), evictor(), reader.clone(), pins.clone(), stop.clone()));
        let inventory = Arc::new(Inventory::new(files(), reader.clone(), documents(), stop.clone()));
        let references = Arc::new(References {
            files: files(),
            table: table.clone(),
            blobs: blobs.clone(),
            documents: documents(),
            reader: reader.clone(),
            inventory: inventory.clone(),
            pins: pins.clone(),
        });
        let writer = Arc::new(LinkWriter {
            files: files(),
            evictor: evictor(),
            reader: reader.clone(),
            documents: documents(),
            members,
            pins: pins.clone(),
            pinning: pinning.clone(),
            origins: origins.clone(),
            index: index.clone(),
            tags: metrics.store_objects.with_label_values(&["tag"]),
            manifests: metrics.store_objects.with_label_values(&["manifest"]),
        });
        let lists = Arc::new(Lists::new(files(), evictor()));
        Self { reader, writer, membership, pinning, inventory, references, lists }
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
        let Base { metrics, stop, jobs, files, space, table, givers, blobs, index, .. } = base;
        let Room { last_use, pins, origins, leftovers, evictor, .. } = room;
        let counter = Arc::new(Counter {
            files: files.clone(),
            space: space.clone(),
            table: table.clone(),
            blobs: blobs.clone(),
            reader: names.reader.clone(),
            pins: pins.clone(),
            pinning: names.pinning.clone(),
            origins: origins.clone(),
            index: index.clone(),
            tags: metrics.store_objects.with_label_values(&["tag"]),
            manifests: metrics.store_objects.with_label_values(&["manifest"]),
            stop: stop.clone(),
            counted: Arc::default(),
            recount: AtomicBool::new(false),
        });
        let upkeep = Upkeep {
            files: files.clone(),
            space: space.clone(),
            table: table.clone(),
            blobs: blobs.clone(),
            last_use: last_use.clone(),
            evictor: evictor.clone(),
            leftovers: leftovers.clone(),
            origins: origins.clone(),
            pins: pins.clone(),
            pinning: names.pinning.clone(),
            index: index.clone(),
            counter: counter.clone(),
            stop: stop.clone(),
        };
        let watch = Arc::new(Watch {
            settings: settings.clone(),
            jobs: jobs.clone(),
            files: files.clone(),
            space: space.clone(),
            table: table.clone(),
            blobs: blobs.clone(),
            givers: givers.clone(),
            leftovers: leftovers.clone(),
            counter: counter.clone(),
            metrics: metrics.clone(),
            stop: stop.clone(),
        });
        let scrub = Scrub {
            files: files.clone(),
            blobs: blobs.clone(),
            table: table.clone(),
            metrics: metrics.clone(),
            stop: stop.clone(),
            counted: counter.counted.clone(),
            rate: settings.scrub_rate,
        };
        Self { counter, upkeep, watch, scrub }
    }
}

fn join(base: Base, room: Room, names: Names, counted: Arc<AtomicBool>) -> Parts {
    let Base { metrics, stop, jobs, files, space, table, givers, blobs, documents, index } = base;
    let Room { partials, last_use, pins, holds, origins, evictor, .. } = room;
    let Names { reader, writer, membership, pinning, inventory, references, lists } = names;
    let intake = Arc::new(Intake {
        jobs: jobs.clone(),
        files: files.clone(),
        space: space.clone(),
        evictor: evictor.clone(),
        partials: partials.clone(),
        blobs: blobs.clone(),
        table: table.clone(),
        documents: documents.clone(),
        givers: givers.clone(),
        metrics,
    });
    let inspector = Arc::new(Inspector::new(files.clone(), blobs.clone(), table.clone(), stop.clone()));
    Parts {
        stop,
        jobs,
        files,
        space,
        table,
        blobs,
        documents,
        givers,
        partials,
        intake,
        evictor,
        last_use,
        pins,
        holds,
        origins,
        index,
        reader,
        writer,
        membership,
        pinning,
        inventory,
        references,
        lists,
        inspector,
        counted,
        background: Mutex::default(),
    }
}
