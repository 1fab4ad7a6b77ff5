//! Who makes a registry fail: one kind at a time, again and again, each registry for itself.

use super::Round;
use super::harness::Dice;
use super::harness::simulator::{Damage, DamageKind, Fault, FaultAnswer, PathClass, Settings};
use super::kinds::Kind;
use super::world::Registry;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// The kinds that a registry can do.
const KINDS: &[Kind] = &[
    Kind::ServerError,
    Kind::ThrottledWithTime,
    Kind::ThrottledWithout,
    Kind::RequestReset,
    Kind::BodyReset,
    Kind::BodyCut,
    Kind::BodyStall,
    Kind::SlowHeaders,
    Kind::WrongByte,
    Kind::TooShort,
    Kind::TooLong,
    Kind::Portal,
    Kind::ForeignNotFound,
    Kind::ForeignRedirect,
    Kind::Firewall,
    Kind::ExpiredSignature,
    Kind::TokenRefused,
    Kind::RangeIgnored,
    Kind::StorageDown,
    Kind::Refused,
    Kind::Blackhole,
];

/// An episode ends after so many effects …
const ENOUGH: u64 = 6;
/// … or so long.
const EPISODE: Duration = Duration::from_millis(1500);

/// Lets registry `number` fail until the round's faults are over, and leaves it well.
pub async fn run(round: Arc<Round>, number: usize, mut dice: Dice) {
    let registry = &round.world.registries[number];
    let mut counted = registry.acr.effects();
    while !round.is_over() {
        let kind = round.tally.rare(KINDS, &mut dice);
        let refused = round.tally.of(Kind::Refused);
        begin(registry, kind, &mut dice);
        let end = Instant::now() + EPISODE;
        let before: u64 = counted.values().sum();
        while Instant::now() < end && !round.is_over() {
            sleep(Duration::from_millis(20)).await;
            let effects = registry.acr.effects().values().sum::<u64>() - before;
            if effects + round.tally.of(Kind::Refused) - refused >= ENOUGH {
                break;
            }
        }
        end_of(registry, kind);
        round.tally.absorb(&mut counted, registry.acr.effects());
        round.judge(&registry.acr.violations());
        registry.acr.clear_log();
        sleep(Duration::from_millis(30 + dice.below(100))).await;
    }
    sleep(Duration::from_millis(200)).await;
    round.tally.absorb(&mut counted, registry.acr.effects());
}

fn begin(registry: &Registry, kind: Kind, dice: &mut Dice) {
    let knobs = registry.acr.knobs();
    let at = if dice.one_in(2) { dice.below(2 << 20) } else { dice.below(100 << 10) };
    let damage = |kind| knobs.damage(Damage::always(kind, at));
    let turn = |change: &dyn Fn(&mut Settings)| knobs.turn(|settings| change(settings));
    let anywhere = [PathClass::All, PathClass::Manifests, PathClass::Blobs, PathClass::Storage];
    let on = *dice.pick(&anywhere);
    match kind {
        Kind::ServerError => {
            let status = *dice.pick(&[500, 502, 503]);
            let body = if dice.one_in(2) { String::new() } else { "<html>bad gateway</html>".to_owned() };
            knobs.fail(on, FaultAnswer::Status { status, body });
        }
        Kind::ThrottledWithTime => {
            let answer = FaultAnswer::TooManyRequests { retry_after_s: Some(1), counts_down: false, front_door: false };
            knobs.fail(on, answer);
        }
        Kind::ThrottledWithout => {
            let answer = FaultAnswer::TooManyRequests { retry_after_s: None, counts_down: false, front_door: true };
            // Its pause doubles with each in a row.
            turn(&|settings| settings.faults.push(Fault::times(on, answer.clone(), 3)));
        }
        Kind::RequestReset => turn(&|settings| settings.login.reset = true),
        Kind::BodyReset => damage(DamageKind::Reset),
        Kind::BodyCut => damage(DamageKind::Cut),
        Kind::BodyStall => damage(DamageKind::Stall),
        Kind::WrongByte => damage(DamageKind::Flip),
        Kind::TooShort => damage(DamageKind::Short),
        Kind::TooLong => damage(DamageKind::Long),
        Kind::SlowHeaders => turn(&|settings| (settings.login.delay_ms, settings.storage.delay_ms) = (1200, 1200)),
        Kind::Portal => knobs.fail(on, FaultAnswer::Portal { status: 200 }),
        Kind::ForeignNotFound => knobs.fail(on, FaultAnswer::Portal { status: 404 }),
        Kind::ForeignRedirect => {
            let location = format!("http://{}/login", registry.acr.storage_host());
            knobs.fail(on, FaultAnswer::ForeignRedirect { location });
        }
        Kind::Firewall => turn(&|settings| settings.firewall = true),
        Kind::ExpiredSignature => turn(&|settings| settings.sas_life_s = 0),
        Kind::TokenRefused => {
            knobs.fail(PathClass::Token, FaultAnswer::empty(401));
            registry.acr.revoke_tokens();
        }
        // A range is asked for after a cut.
        Kind::RangeIgnored => turn(&|settings| {
            settings.ranges = false;
            settings.damage.push(Damage::times(DamageKind::Cut, at, 4));
        }),
        Kind::StorageDown => turn(&|settings| settings.storage.reset = true),
        Kind::Refused => registry.acr.stop_listening(),
        Kind::Blackhole => turn(&|settings| (settings.login.hang, settings.storage.hang) = (true, true)),
        _ => {}
    }
}

/// The registry is well again.
fn end_of(registry: &Registry, kind: Kind) {
    let life = registry.acr.knobs().get().access_life_s;
    registry.acr.knobs().turn(|settings| *settings = Settings { access_life_s: life, ..Settings::default() });
    if kind == Kind::Refused {
        registry.acr.resume_listening();
    }
}
