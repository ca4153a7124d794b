/** Objects of docker's JSON progress streams (pkg/jsonmessage), with dockerd's ready-made bar text. */

export type ProgressMessage = Readonly<Record<string, unknown>>;

/** Receives a progress stream in order; a promise holds back the producer. */
export type WriteProgress = (message: ProgressMessage) => Promise<void> | void;

const BAR_WIDTH = 50;

/** go-units HumanSize: decimal, four significant digits. */
export function humanSize(sizeBytes: number): string {
  const units = ['B', 'kB', 'MB', 'GB', 'TB', 'PB', 'EB'];
  let size = sizeBytes;
  let unit = 0;
  while (size >= 1000 && unit < units.length - 1) {
    size /= 1000;
    unit += 1;
  }
  return `${Number(size.toPrecision(4))}${units[unit]}`;
}

/** The text beside the bar, as dockerd sends it. */
export function progressText(current: number, total: number): string {
  if (current <= 0 && total <= 0) return '';
  if (total <= 0) return humanSize(current).padStart(8);
  const filled = Math.min(BAR_WIDTH, Math.floor((current / total) * 50));
  const bar = `[${'='.repeat(filled)}>${' '.repeat(BAR_WIDTH - filled)}] `;
  const numbers = humanSize(current).padStart(8);
  return `${bar} ${current > total ? numbers : `${numbers}/${humanSize(total)}`}`;
}

/** One step of a transfer. */
export function progressMessage(
  id: string,
  status: string,
  amount: { current: number; total: number },
): ProgressMessage {
  const { current, total } = amount;
  return {
    status,
    progressDetail: { ...(current > 0 ? { current } : {}), ...(total > 0 ? { total } : {}) },
    ...(progressText(current, total) === '' ? {} : { progress: progressText(current, total) }),
    ...(id === '' ? {} : { id }),
  };
}

/** What is told while a transfer waits for its next attempt. */
export function retryText(seconds: number): string {
  return `Retrying in ${seconds} second${seconds === 1 ? '' : 's'}`;
}

/** Steps reported per transfer at most once in this many bytes. */
const PROGRESS_STEP_BYTES = 512 * 1024;

/** Passes a stream on, reporting how far it is. */
export async function* reportProgress(
  source: AsyncIterable<Buffer>,
  options: { id: string; status: string; total: number; write: WriteProgress | undefined },
): AsyncGenerator<Buffer> {
  let current = 0;
  let reported = 0;
  for await (const chunk of source) {
    current += chunk.length;
    if (options.write !== undefined && (current - reported >= PROGRESS_STEP_BYTES || current === options.total)) {
      reported = current;
      await options.write(progressMessage(options.id, options.status, { current, total: options.total }));
    }
    yield chunk;
  }
}
