/**
 * Patterns over repository names: `*` stands for any text within one path component, `**` for any text, everything
 * else for itself. Matching is linear in name times pattern; no regular expression is made from user text.
 */

type Part = { readonly kind: 'text'; readonly text: string } | { readonly kind: 'star' | 'doubleStar' };

function partsOf(pattern: string): Part[] {
  return pattern
    .split(/(\*+)/)
    .filter((piece) => piece !== '')
    .map((piece) => {
      if (!piece.startsWith('*')) return { kind: 'text', text: piece };
      return { kind: piece.length === 1 ? 'star' : 'doubleStar' };
    });
}

/** The positions of `name` reached after one more part. */
function advance(name: string, positions: ReadonlySet<number>, part: Part): Set<number> {
  const next = new Set<number>();
  if (part.kind === 'text') {
    for (const at of positions) if (name.startsWith(part.text, at)) next.add(at + part.text.length);
    return next;
  }
  let isOpen = false;
  for (let at = 0; at <= name.length; at++) {
    if (positions.has(at)) isOpen = true;
    if (isOpen) next.add(at);
    if (part.kind === 'star' && name[at] === '/') isOpen = false;
  }
  return next;
}

/** Whether the whole of `name` matches. */
export function matchesGlob(pattern: string, name: string): boolean {
  let positions: Set<number> = new Set([0]);
  for (const part of partsOf(pattern)) {
    positions = advance(name, positions, part);
    if (positions.size === 0) return false;
  }
  return positions.has(name.length);
}
