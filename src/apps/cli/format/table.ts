/**
 * `--format` of list commands: table, `table TEMPLATE`, json, raw, or a Go template a line. Rows are
 * StructViews; the header row maps each column to its title, as docker's formatter does.
 */
import { ExitError } from '../args/usage-error.ts';
import { Template } from '../template/execute.ts';
import { TITLE_FUNCTIONS } from '../template/functions.ts';
import { TemplateError } from '../template/lexer.ts';
import { alignTabs } from '../template/tabwriter.ts';
import { StructView } from '../template/values.ts';

/** A kind of list: its columns' titles and its default layout. */
export interface ListLayout {
  readonly headers: Readonly<Record<string, string>>;
  readonly table: string;
  readonly quiet: string;
  readonly raw?: string;
  readonly rawQuiet?: string;
}

/** How to print. */
export interface ListFormat {
  readonly format: string;
  readonly quiet: boolean;
}

/** `\\t` and `\\n` may be written out on a command line. */
function unescaped(format: string): string {
  return format.replaceAll('\\t', '\t').replaceAll('\\n', '\n');
}

function parsingError(error: unknown): unknown {
  return error instanceof TemplateError ? new ExitError(1, `template parsing error: ${error.message}\n`) : error;
}

function compile(source: string): Template {
  try {
    return new Template(source);
  } catch (error) {
    throw parsingError(error);
  }
}

/** The title of `.Label "com.example.some-name"`: the last part of the name, in words. */
function labelTitle(name: unknown): string {
  return (String(name).split('.').at(-1) ?? '').replace(/[-_]/g, ' ');
}

/** Titles of the header row: a field of a row becomes its column's title. */
function titles(headers: Readonly<Record<string, string>>): StructView {
  const fields = Object.fromEntries(Object.entries(headers).map(([name, title]) => [name, () => title]));
  return new StructView('formatter.SubHeaderContext', fields, { methods: { Label: labelTitle }, open: true });
}

function headerOf(template: Template, headers: Readonly<Record<string, string>>): string {
  try {
    return template.execute(titles(headers), { functions: TITLE_FUNCTIONS }).replaceAll('<no value>', '');
  } catch (error) {
    // Compat: a column without a title has none, and what does not fit is no error here.
    if (error instanceof TemplateError) return error.partialOutput;
    throw error;
  }
}

/** The text of a list. */
export function formatList(rows: readonly StructView[], layout: ListLayout, choice: ListFormat): string {
  let format = choice.format;
  if (choice.quiet && (format === '' || format === 'table'))
    return rows.map((row) => `${new Template(layout.quiet).execute(row)}\n`).join('');
  if (format === 'json') format = '{{json .}}';
  if (format === 'raw' && layout.raw !== undefined)
    format = choice.quiet && layout.rawQuiet !== undefined ? layout.rawQuiet : layout.raw;
  if (format === '' || format === 'table') format = `table ${layout.table}`;
  const isTable = format.startsWith('table');
  const template = compile(unescaped((isTable ? format.slice('table'.length) : format).replace(/^ +| +$/g, '')));
  let body: string[];
  try {
    body = rows.map((row) => `${template.execute(row)}\n`);
  } catch (error) {
    throw parsingError(error);
  }
  return isTable ? alignTabs([`${headerOf(template, layout.headers)}\n`, ...body].join('')) : body.join('');
}

/** Labels as the LABELS column shows them. */
export function labelsText(labels: Readonly<Record<string, string>> | null | undefined): string {
  return Object.entries(labels ?? {})
    .map(([key, value]) => `${key}=${value}`)
    .join(',');
}

/** `.Label "name"` of a row. */
export function labelMethod(labels: Readonly<Record<string, string>> | null | undefined): {
  readonly Label: (name: unknown) => string;
} {
  return { Label: (name) => labels?.[String(name)] ?? '' };
}

/** Shortens to `width` columns with an ellipsis. */
export function ellipsis(text: string, width: number): string {
  const chars = [...text];
  if (chars.length <= width) return text;
  return width <= 1 ? chars.slice(0, width).join('') : `${chars.slice(0, width - 1).join('')}…`;
}
