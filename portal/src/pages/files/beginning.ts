// The first lines of a file of any size.

import { contentOf } from "../../api/files";
import { ApiError } from "../../api/http";

const MOST_BYTES = 64 * 1024;

export interface Beginning {
  lines: string[];
  /** Whether the file goes on after these lines. */
  isPart: boolean;
}

/** Reads no more than is shown: the server sends files whole, so the rest is left unread. */
export async function beginningOf(id: string, signal: AbortSignal, most = MOST_BYTES): Promise<Beginning> {
  const leave = new AbortController();
  signal.addEventListener("abort", () => leave.abort());
  const answer = await fetch(contentOf(id), {
    credentials: "same-origin",
    cache: "no-store",
    signal: leave.signal,
  });
  if (!answer.ok || !answer.body) throw new ApiError(answer.statusText, answer.status);
  const { bytes, isPart } = await firstBytes(answer.body, most);
  leave.abort();
  const lines = new TextDecoder().decode(bytes).split(/\r?\n/);
  // The last line was cut, unless it is all there is.
  if (lines.length > 1 && (isPart || lines.at(-1) === "")) lines.pop();
  return { lines, isPart };
}

async function firstBytes(body: ReadableStream<Uint8Array>, most: number) {
  const reader = body.getReader();
  const found = new Uint8Array(most);
  let length = 0;
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return { bytes: found.subarray(0, length), isPart: false };
    const part = value.subarray(0, most - length);
    found.set(part, length);
    length += part.length;
    if (part.length < value.length) return { bytes: found, isPart: true };
  }
}
