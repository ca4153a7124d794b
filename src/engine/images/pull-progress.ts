/** Steps of layers as the lines of docker's pull: `Pulling fs layer`, `Downloading`, … `Pull complete`. */
import { type Digest, digestHex } from '#types/digest.ts';
import { shortId } from '#types/ids.ts';
import type { LayerSource, LayerStep } from './intake.ts';
import { progressMessage, retryText, type WriteProgress } from './progress.ts';

type Observe = (layer: Pick<LayerSource, 'digest'>, step: LayerStep) => Promise<void> | void;

/** Turns steps into messages. */
export function pullObserver(write: WriteProgress): Observe {
  const announced = new Set<Digest>();
  return async ({ digest }, step) => {
    const id = shortId(digestHex(digest));
    if (step.step !== 'exists' && !announced.has(digest)) {
      announced.add(digest);
      await write({ status: 'Pulling fs layer', progressDetail: {}, id });
    }
    if ('current' in step) {
      const status = step.step === 'downloading' ? 'Downloading' : 'Extracting';
      await write(progressMessage(id, status, step));
    } else await write({ status: statusOf(step), progressDetail: {}, id });
  };
}

function statusOf(step: Exclude<LayerStep, { current: number }>): string {
  switch (step.step) {
    case 'exists':
      return 'Already exists';
    case 'waiting':
      return 'Waiting';
    case 'verifying':
      return 'Verifying Checksum';
    case 'downloaded':
      return 'Download complete';
    case 'complete':
      return 'Pull complete';
    case 'retrying':
      return retryText(step.seconds);
    default:
      return step satisfies never;
  }
}
