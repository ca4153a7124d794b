/** HTML as a tagged template: every value is escaped unless it is HTML itself. The look of all pages. */
import { createHash } from 'node:crypto';

/** Text that is safe to send. */
export class Html {
  readonly text: string;

  constructor(text: string) {
    this.text = text;
  }
}

const ESCAPES: Readonly<Record<string, string>> = {
  '&': '&amp;',
  '<': '&lt;',
  '>': '&gt;',
  '"': '&quot;',
  "'": '&#39;',
};

type Part = Html | string | number | readonly Html[];

function render(part: Part): string {
  if (part instanceof Html) return part.text;
  if (typeof part === 'string' || typeof part === 'number')
    return String(part).replace(/[&<>"']/g, (char) => ESCAPES[char] ?? '');
  return part.map(render).join('');
}

/** Builds HTML from literals and escaped values. */
export function html(literals: TemplateStringsArray, ...parts: readonly Part[]): Html {
  return new Html(
    literals.map((literal, index) => literal + (index < parts.length ? render(parts[index] ?? '') : '')).join(''),
  );
}

const STYLE = `:root{color-scheme:light dark;--line:#8884;--soft:#8882;--link:light-dark(#0b5cad,#7ab8ff)}
*{box-sizing:border-box}
body{font:15px/1.5 system-ui,sans-serif;max-width:70rem;margin:0 auto;padding:0 1rem 3rem}
header{display:flex;gap:1rem;align-items:baseline;justify-content:space-between;border-bottom:1px solid var(--line);padding:.8rem 0;margin-bottom:1rem}
header strong{font-size:1.1rem}
h1{font-size:1.4rem;overflow-wrap:anywhere}
h2{font-size:1.1rem;margin-top:2rem}
a{color:var(--link);text-decoration:none}a:hover{text-decoration:underline}
table{border-collapse:collapse;width:100%}
th,td{text-align:left;padding:.35rem .6rem;border-bottom:1px solid var(--line);vertical-align:top}
th{font-weight:600}
td.number,th.number{text-align:right;white-space:nowrap}
code,pre{font:13px/1.5 ui-monospace,monospace;overflow-wrap:anywhere}
pre{background:var(--soft);padding:.6rem .8rem;border-radius:6px;overflow-x:auto;white-space:pre-wrap}
dl{display:grid;grid-template-columns:max-content 1fr;gap:.2rem 1rem}dt{font-weight:600}dd{margin:0;overflow-wrap:anywhere}
.scroll{overflow-x:auto}.soft{opacity:.75}`;

/** Only the page's own style runs; nothing is loaded, framed or sent anywhere. */
export const CONTENT_SECURITY_POLICY: string = [
  "default-src 'none'",
  `style-src 'sha256-${createHash('sha256').update(STYLE).digest('base64')}'`,
  "base-uri 'none'",
  "form-action 'none'",
  "frame-ancestors 'none'",
].join('; ');

/** A whole page. */
export function page(options: { title: string; user: string | undefined; canLogIn: boolean; body: Html }): string {
  const { title, user, canLogIn, body } = options;
  const who =
    user === undefined
      ? canLogIn
        ? html`<a href="/ui/login">Log in</a>`
        : html``
      : html`<span class="soft">${user}</span>`;
  return html`<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>${title}</title><style>${new Html(STYLE)}</style></head>
<body><header><strong><a href="/ui/">Registry</a></strong>${who}</header>
<main>${body}</main></body></html>
`.text;
}

/** `12.3 MB`, as docker writes sizes. */
export function humanSize(bytes: number): string {
  const units = ['B', 'kB', 'MB', 'GB', 'TB', 'PB'];
  let value = bytes;
  let unit = 0;
  while (value >= 1000 && unit < units.length - 1) {
    value /= 1000;
    unit += 1;
  }
  return `${unit === 0 ? value : Number(value.toPrecision(3))} ${units[unit]}`;
}

/** `2026-11-27 12:30` in UTC. */
export function shortTime(ms: number): string {
  return new Date(ms).toISOString().slice(0, 16).replace('T', ' ');
}
