/**
 * `--format` of list commands: table, `table TEMPLATE`, json, raw, or a Go template a line. Rows are
 * StructViews; the header row maps each column to its title, as docker's formatter does.
 */
import { ExitError } from '../args/usage-error.ts';
import { Template } from '../template/execute.ts';
import { TemplateError } from '../template/lexer.ts';
import { alignTabs } from '../template/tabwriter.ts';
import { goJson, type StructView } from '../template/values.ts';

/** A kind of list: its columns' titles and its default layout. */
export interface ListLayout {
  readonly headers: Readonly<Record<string, string>>;
  readonly table: string;
  readonly quiet: string;
  readonly raw?: string;
}

/** How to print. */
export interface ListFormat {
  readonly format: string;
  readonly quiet: boolean;
}

function fillHeader(format: string): string {
  return format.replaceAll('\\t', '\t').replaceAll('\\n', '\n');
}

function compile(source: string): Template {
  try {
    return new Template(source);
  } catch (error) {
    if (error instanceof TemplateError) throw new ExitError(1, `template parsing error: ${error.message}\n`);
    throw error;
  }
}

/** Titles of the header row: a field of a row becomes its column's title. */
function headerView(headers: Readonly<Record<string, string>>): unknown {
  return headers;
}

/** The text of a list. */
export function formatList(rows: readonly StructView[], layout: ListLayout, choice: ListFormat): string {
  let format = choice.format;
  if (choice.quiet && (format === '' || format === 'table'))
    return rows.map((row) => `${new Template(layout.quiet).execute(row)}\n`).join('');
  if (format === 'json') return rows.map((row) => `${goJson(row.toJSON(), { escapeHtml: true })}\n`).join('');
  if (format === 'raw' && layout.raw !== undefined) format = layout.raw;
  if (format === '' || format === 'table') format = `table ${layout.table}`;
  const isTable = format.startsWith('table');
  const template = compile(fillHeader(isTable ? format.slice('table'.length).trim() : format));
  try {
    const body = rows.map((row) => `${template.execute(row)}\n`);
    if (!isTable) return body.join('');
    const header = template.execute(headerView(layout.headers)).replaceAll('<no value>', '');
    return alignTabs([`${header}\n`, ...body].join(''));
  } catch (error) {
    if (error instanceof TemplateError) throw new ExitError(1, `failed to execute template: ${error.message}\n`);
    throw error;
  }
}

/** Shortens to `width` columns with an ellipsis. */
export function ellipsis(text: string, width: number): string {
  const chars = [...text];
  if (chars.length <= width) return text;
  return width <= 1 ? chars.slice(0, width).join('') : `${chars.slice(0, width - 1).join('')}…`;
}
