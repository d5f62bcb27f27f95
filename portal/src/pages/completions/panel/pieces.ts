// Long texts in pieces, so that a browser has to lay out only those in sight.

/** Pieces of about `letters`, cut at line ends where there are any, and never within a character. */
export function pieces(text: string, letters: number): string[] {
  const found: string[] = [];
  let at = 0;
  while (at < text.length) {
    const end = at + letters >= text.length ? text.length : cut(text, at, letters);
    // The line end goes with the cut: each piece is a block of its own.
    found.push(text.slice(at, text[end - 1] === "\n" && end < text.length ? end - 1 : end));
    at = end;
  }
  return found;
}

function cut(text: string, from: number, letters: number): number {
  const line = text.lastIndexOf("\n", from + letters - 1);
  if (line > from + letters / 2) return line + 1;
  const space = text.lastIndexOf(" ", from + letters - 1);
  const end = space > from + letters / 2 ? space + 1 : from + letters;
  // Not between the two halves of a character beyond the first 65,536.
  const next = text.charCodeAt(end);
  return next >= 0xdc00 && next <= 0xdfff ? end + 1 : end;
}
