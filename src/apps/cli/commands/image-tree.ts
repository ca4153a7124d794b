/** `image ls --tree`: images with their platforms below them, in columns that fit the terminal. */
import { ExitError } from '../args/usage-error.ts';
import type { Json } from '../connection/api.ts';
import { ellipsis } from '../format/table.ts';
import { filtersOf, type Session } from '../session.ts';
import { INFORMATION } from '../terminal/notes.ts';
import { humanSize } from '../text/go-text.ts';
import type { ImageSummary } from './images.ts';

const RESET = '\x1b[0m';
const WARNING_COLOR = '\x1b[93m';
const TITLE_COLOR = '\x1b[39m\x1b[1m';
const NAME_COLOR = '\x1b[34m\x1b[1m';
const PLAIN_COLOR = '\x1b[39m';
const FAINT_COLOR = '\x1b[39m\x1b[2m';
const SPACING = 3;
const DEFAULT_COLUMNS = 80;
const MIN_COLUMNS = 20;
const MIN_NAME_COLUMNS = 12;

interface Details {
  readonly id: string;
  readonly diskUsage: string;
  readonly contentSize: string;
  readonly inUse: boolean;
}

interface Child extends Details {
  readonly platform: string;
  readonly available: boolean;
}

interface TreeImage extends Details {
  readonly names: readonly string[];
  readonly children: readonly Child[];
  readonly created: number;
}

interface Manifest {
  readonly ID: string;
  readonly Kind: string;
  readonly Available: boolean;
  readonly Size: { readonly Total: number; readonly Content: number };
  readonly ImageData?: {
    readonly Platform: { readonly os?: string; readonly architecture?: string; readonly variant?: string };
    readonly Containers?: readonly string[] | null;
  } | null;
}

interface Summary extends ImageSummary {
  readonly Manifests?: readonly Manifest[] | null;
}

function childOf(manifest: Manifest): Child {
  const platform = manifest.ImageData?.Platform ?? {};
  const parts = [platform.os ?? '', platform.architecture ?? '', platform.variant ?? ''];
  return {
    platform: parts[0] === '' ? 'unknown' : parts.filter((part) => part !== '').join('/'),
    available: manifest.Available,
    id: manifest.ID,
    diskUsage: humanSize(manifest.Size.Total, 3),
    contentSize: humanSize(manifest.Size.Content, 3),
    inUse: (manifest.ImageData?.Containers ?? []).length > 0,
  };
}

function treeImage(image: Summary): TreeImage {
  const manifests = image.Manifests ?? [];
  const children = manifests.filter(({ Kind }) => Kind === 'image').map(childOf);
  return {
    names: image.RepoTags ?? [],
    id: image.Id,
    diskUsage: humanSize(image.Size, 3),
    contentSize: humanSize(
      manifests.reduce((sum, { Size }) => sum + Size.Content, 0),
      3,
    ),
    inUse: image.Containers > 0 || children.some(({ inUse }) => inUse),
    children,
    created: image.Created,
  };
}

function isDangling(image: Summary): boolean {
  const tags = (image.RepoTags ?? []).filter((tag) => tag !== '<none>:<none>');
  const digests = (image.RepoDigests ?? []).filter((digest) => digest !== '<none>@<none>');
  return tags.length === 0 && digests.length === 0;
}

interface Column {
  readonly title: string;
  readonly width: number;
  readonly right: boolean;
  /** Undefined: the row's colour. */
  readonly color?: string;
  readonly value: (details: Details) => string;
}

/** Columns of visible text. */
function widthOf(text: string): number {
  // biome-ignore lint/suspicious/noControlCharactersInRegex: escape sequences are what is measured.
  return [...text.replace(/\x1b\[[0-9;]*m/g, '')].length;
}

function painted(color: string, text: string): string {
  return color === '' ? text : `${color}${text}${RESET}`;
}

function cell(text: string, color: string, shape: { width: number; right: boolean }): string {
  const missing = shape.width - widthOf(text);
  if (missing < 0) return painted(color, ellipsis(text, shape.width));
  const fill = ' '.repeat(missing);
  return shape.right ? fill + painted(color, text) : painted(color, text) + fill;
}

class Tree {
  readonly #isTty: boolean;
  readonly #columns: number;
  readonly #images: readonly TreeImage[];

  constructor(images: readonly TreeImage[]) {
    this.#images = images;
    this.#isTty = process.stdout.isTTY === true;
    this.#columns = Math.max(process.stdout.columns || DEFAULT_COLUMNS, MIN_COLUMNS);
  }

  #chip(letter: string): string {
    return this.#isTty ? `\x1b[38;5;0m\x1b[48;5;14m ${letter} ${RESET}` : letter;
  }

  #legend(): string {
    const header = this.#isTty ? INFORMATION.fancy : INFORMATION.plain;
    const legend = `${header} ${this.#chip('U')} In Use `;
    return ' '.repeat(Math.max(0, this.#columns - widthOf(legend))) + legend;
  }

  #layout(): { names: number; columns: readonly Column[] } {
    const chips = this.#images.some(({ inUse }) => inUse);
    const blank = this.#isTty ? '   ' : ' ';
    const all: readonly Column[] = [
      {
        title: 'ID',
        width: 12,
        right: false,
        value: ({ id }) => id.replace(/^sha256:/, '').slice(0, 12),
      },
      { title: 'DISK USAGE', width: 10, right: true, value: ({ diskUsage }) => diskUsage },
      { title: 'CONTENT SIZE', width: 12, right: true, value: ({ contentSize }) => contentSize },
      {
        title: 'EXTRA',
        width: 5,
        right: false,
        color: '',
        value: ({ inUse }) => (chips ? (inUse ? this.#chip('U') : blank) : ''),
      },
    ];
    let names = this.#columns;
    let count = 0;
    for (const { width } of all) {
      if (names - width - SPACING < MIN_NAME_COLUMNS) break;
      names -= width + SPACING;
      count++;
    }
    const widest = Math.max(
      'IMAGE'.length,
      ...this.#images.flatMap((image) => [
        ...image.names.map((name) => name.length),
        // Compat: docker measures the branch in bytes, of which it has seven.
        ...image.children.map((child) => child.platform.length + Buffer.byteLength('└─ ')),
      ]),
    );
    return { names: Math.min(names, widest), columns: all.slice(0, count) };
  }

  render(): string {
    const { names, columns } = this.#layout();
    const first = { width: names, right: false };
    const details = (row: Details, color: string): string =>
      columns.map((column) => ' '.repeat(SPACING) + cell(column.value(row), column.color ?? color, column)).join('');
    const titles = [
      cell('IMAGE', TITLE_COLOR, first),
      ...columns.map((column) => ' '.repeat(SPACING) + cell(column.title, TITLE_COLOR, column)),
    ];
    const nameColor = this.#isTty ? NAME_COLOR : '';
    const plain = this.#isTty ? PLAIN_COLOR : '';
    const faint = this.#isTty ? FAINT_COLOR : '';
    const spaced = this.#images.some(({ children }) => children.length > 0);
    let out = `${painted(this.#isTty ? WARNING_COLOR : '', "WARNING: This is an experimental feature. The output may change and shouldn't be depended on.")}\n`;
    out += `${this.#legend()}\n\n${titles.join('')}\n`;
    for (const image of this.#images) {
      const sorted = [...image.names].sort((a, b) => b.length - a.length);
      const last = sorted.pop();
      for (const name of sorted) out += `${painted(nameColor, ellipsis(name, this.#columns))}\n`;
      out += last === undefined ? cell('<untagged>', faint, first) : cell(last, nameColor, first);
      out += details(image, plain);
      if (spaced) out += '\n';
      for (const [index, child] of image.children.entries()) {
        const color = child.available ? plain : faint;
        const branch = index === image.children.length - 1 ? '└─ ' : '├─ ';
        out += `${cell(branch + child.platform, color, first)}${details(child, color)}\n`;
      }
      out += '\n';
    }
    return out;
  }
}

function refuseOthers(session: Session): void {
  const { flags } = session;
  const refused: readonly [boolean, string][] = [
    [flags.bool('quiet'), '--quiet'],
    [flags.bool('no-trunc'), '--no-trunc'],
    [flags.bool('digests'), '--show-digest'],
    [flags.text('format') !== '', '--format'],
  ];
  const found = refused.find(([given]) => given);
  if (found !== undefined) throw new ExitError(1, `${found[1]} is not yet supported with --tree\n`);
}

/** `image ls --tree`. */
export async function imageTree(session: Session, filters: readonly string[]): Promise<number> {
  refuseOthers(session);
  const all = session.flags.bool('all');
  const api = await session.connect();
  const answer = await api.json<Json[] | null>('GET', '/images/json', {
    query: { all: all || undefined, filters: filtersOf(filters), manifests: 1 },
  });
  const images = ((answer ?? []) as unknown as Summary[]).filter((image) => all || !isDangling(image));
  session.print(new Tree(images.map(treeImage).sort((a, b) => b.created - a.created)).render());
  return 0;
}
