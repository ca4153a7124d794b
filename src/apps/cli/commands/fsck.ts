/** `system fsck`: prints what the daemon's check of its store finds. Exit codes: 0 whole, 1 findings remain, 2 failed. */
import { ExitError } from '../args/usage-error.ts';
import { allCredentials, type Credentials } from '../config/credentials.ts';
import { type Json, jsonLines } from '../connection/api.ts';
import type { Session } from '../session.ts';
import { humanSize } from '../text/go-text.ts';

const FINDINGS = 1;
const FAILED = 2;

/** `system fsck`. */
export async function checkStore(session: Session): Promise<number> {
  try {
    return await check(session);
  } catch (error) {
    throw new ExitError(FAILED, `${error instanceof Error ? error.message : String(error)}\n`);
  }
}

async function check(session: Session): Promise<number> {
  const { flags } = session;
  const format = flags.text('format');
  if (format !== '' && format !== 'json') throw new Error(`unknown format "${format}": only json is known`);
  if (flags.bool('drop') && !flags.bool('repair')) throw new Error('--drop needs --repair');
  const api = await session.connect();
  // Lost content may be fetched again from where it came.
  const all: Record<string, Credentials> = flags.bool('repair') ? await allCredentials(session).catch(() => ({})) : {};
  const response = await api.open('POST', '/gantry/system/fsck', {
    headers: { 'X-Registry-Config': Buffer.from(JSON.stringify(all)).toString('base64url') },
    query: {
      deep: flags.bool('deep') || undefined,
      repair: flags.bool('repair') || undefined,
      drop: flags.bool('drop') || undefined,
    },
  });
  for await (const line of jsonLines(response)) {
    if (typeof line['error'] === 'string') throw new Error(line['error']);
    const [kind = ''] = Object.keys(line);
    const value = line[kind] as Json;
    if (format === 'json') session.print(`${JSON.stringify(line)}\n`);
    else session.print(kind === 'summary' ? summaryText(value) : findingText(value));
    if (kind === 'summary') return Number(value['remaining']) > 0 ? FINDINGS : 0;
  }
  throw new Error('the daemon ended the check early');
}

function findingText(finding: Json): string {
  const images = (finding['images'] as string[] | undefined) ?? [];
  const used = images.length === 0 ? '' : ` (used by ${images.join(', ')})`;
  const head = `${finding['kind']} ${finding['object']} ${finding['id']}: ${finding['detail']}${used}\n`;
  if (finding['outcome'] !== undefined) return `${head}  ${finding['outcome']}: ${finding['result']}\n`;
  return finding['repair'] === undefined ? head : `${head}  to repair: ${finding['repair']}\n`;
}

function summaryText(summary: Json): string {
  const count = (key: string, one: string, many = `${one}s`): string =>
    `${summary[key]} ${summary[key] === 1 ? one : many}`;
  const what = [
    count('images', 'image'),
    count('layers', 'layer'),
    `${count('blobs', 'blob')} (${humanSize(Number(summary['bytes']))})`,
    count('containers', 'container'),
  ];
  const found = [count('findings', 'finding'), `${summary['repaired']} repaired`, `${summary['remaining']} left`];
  return `Checked ${what.join(', ')}: ${Number(summary['findings']) === 0 ? 'the store is whole' : found.join(', ')}\n`;
}
