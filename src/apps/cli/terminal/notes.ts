/** Notes and warnings beside a command's output, with docker's headers; coloured on a terminal. */
import type { Writable } from 'node:stream';

/** A stream that may be a terminal. */
export type Screen = Writable & { readonly isTTY?: boolean; readonly columns?: number };

/** A header's plain and coloured form, and how many columns both take. */
interface Header {
  readonly plain: string;
  readonly fancy: string;
  readonly columns: { readonly plain: number; readonly fancy: number };
}

/** The header of information. */
export const INFORMATION: Header = {
  plain: ' Info -> ',
  fancy: '\x1b[1m\x1b[106m\x1b[30mi\x1b[0m\x1b[0m \x1b[96mInfo → \x1b[0m\x1b[0m',
  columns: { plain: 9, fancy: 9 },
};

const WARNING: Header = {
  plain: ' Warn -> ',
  fancy: '\x1b[1m\x1b[103m\x1b[30mw\x1b[0m\x1b[0m \x1b[93mWarn → \x1b[0m\x1b[0m',
  columns: { plain: 9, fancy: 9 },
};

function print(screen: Screen, header: Header, text: string): void {
  const isTty = screen.isTTY === true;
  const indent = ' '.repeat(isTty ? header.columns.fancy : header.columns.plain);
  const shown = isTty ? text.replaceAll('--platform', '\x1b[1m--platform\x1b[0m') : text;
  const lines = shown
    .split('\n')
    .map((line, index) => `${index === 0 ? '' : indent}${isTty ? `\x1b[3m${line}\x1b[0m` : line}\n`);
  screen.write(`\n${isTty ? header.fancy : header.plain}${lines.join('')}`);
}

/** Prints information. */
export function printNote(screen: Screen, text: string): void {
  print(screen, INFORMATION, text);
}

/** Prints a warning. */
export function printWarning(screen: Screen, text: string): void {
  print(screen, WARNING, text);
}
