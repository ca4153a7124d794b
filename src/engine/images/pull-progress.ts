/** Steps of layers as the lines of docker's pull: `Pulling fs layer`, `Downloading`, … `Pull complete`. */
import { type Digest, digestHex } from '#types/digest.ts';
import { shortId } from '#types/ids.ts';
import type { LayerSource, LayerStep } from './intake.ts';
import { type ProgressMessage, progressMessage } from './progress.ts';

/** Bars move at most this often, as docker's. */
const STEP_INTERVAL_MS = 100;

/** `f87ff222252f`. */
export function layerName(digest: Digest): string {
  return shortId(digestHex(digest));
}

/** The state line of one layer. */
export function layerMessage(digest: Digest, status: string): ProgressMessage {
  return { status, progressDetail: {}, id: layerName(digest) };
}

/** Turns steps into messages; `write` gets them in order. */
export function pullObserver(
  write: (message: ProgressMessage) => void,
): (layer: Pick<LayerSource, 'digest'>, step: LayerStep) => void {
  const announced = new Set<Digest>();
  const shown = new Map<string, number>();
  return ({ digest }, step) => {
    const say = (status: string): void => write(layerMessage(digest, status));
    if (step.step === 'exists') return say('Already exists');
    if (!announced.has(digest)) {
      announced.add(digest);
      say('Pulling fs layer');
    }
    switch (step.step) {
      case 'waiting':
        return say('Waiting');
      case 'downloading':
      case 'extracting': {
        const key = `${digest} ${step.step}`;
        const now = performance.now();
        if (step.current < step.total && now - (shown.get(key) ?? Number.NEGATIVE_INFINITY) < STEP_INTERVAL_MS) return;
        shown.set(key, now);
        const status = step.step === 'downloading' ? 'Downloading' : 'Extracting';
        return write(progressMessage(layerName(digest), status, { current: step.current, total: step.total }));
      }
      case 'verifying':
        return say('Verifying Checksum');
      case 'downloaded':
        return say('Download complete');
      case 'complete':
        return say('Pull complete');
      case 'retrying':
        return say(`Retrying in ${step.seconds} second${step.seconds === 1 ? '' : 's'}`);
      default:
        return step satisfies never;
    }
  };
}
