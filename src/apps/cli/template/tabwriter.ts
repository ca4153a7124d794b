/**
 * Go's text/tabwriter for the settings docker uses: cells end with a tab, a column is as wide as the widest
 * cell of the consecutive lines that have it, at least `minWidth`, plus `padding`, filled with `padChar`.
 */

/** The settings of a tab writer. */
export interface TabSettings {
  readonly minWidth: number;
  readonly padding: number;
  readonly padChar?: string;
}

/** What docker's tables use. */
export const DOCKER_TABLE: TabSettings = { minWidth: 10, padding: 3 };

function widthOf(cell: string): number {
  return [...cell].length;
}

/** Aligns the cells of `text`. */
export function alignTabs(text: string, settings: TabSettings = DOCKER_TABLE): string {
  const lines = text.split('\n').map((line) => line.split('\t'));
  const rows: string[] = lines.map(() => '');
  formatBlock({ lines, rows, settings }, { column: 0, from: 0, to: lines.length, widths: [] });
  return rows.join('\n');
}

interface Table {
  readonly lines: readonly (readonly string[])[];
  readonly rows: string[];
  readonly settings: TabSettings;
}

interface Range {
  readonly column: number;
  readonly from: number;
  readonly to: number;
  readonly widths: readonly number[];
}

/** Cells before the last of a line are tab-terminated; the last one does not make a column. */
function hasColumn(cells: readonly string[], column: number): boolean {
  return column < cells.length - 1;
}

function formatBlock(table: Table, range: Range): void {
  const { column, widths } = range;
  let line = range.from;
  while (line < range.to) {
    const cells = table.lines[line] ?? [];
    if (!hasColumn(cells, column)) {
      table.rows[line] = joinRow(cells, widths, table.settings);
      line++;
      continue;
    }
    let end = line;
    let widest = 0;
    while (end < range.to && hasColumn(table.lines[end] ?? [], column)) {
      widest = Math.max(widest, widthOf(table.lines[end]?.[column] ?? ''));
      end++;
    }
    const isEmpty = table.lines.slice(line, end).every((row) => (row[column] ?? '') === '');
    const width =
      isEmpty && table.settings.minWidth === 0 ? 0 : Math.max(table.settings.minWidth, widest + table.settings.padding);
    formatBlock(table, { column: column + 1, from: line, to: end, widths: [...widths, width] });
    line = end;
  }
}

function joinRow(cells: readonly string[], widths: readonly number[], settings: TabSettings): string {
  const pad = settings.padChar ?? ' ';
  return cells
    .map((cell, index) => {
      const width = widths[index];
      return width === undefined ? cell : cell + pad.repeat(Math.max(0, width - widthOf(cell)));
    })
    .join('');
}
