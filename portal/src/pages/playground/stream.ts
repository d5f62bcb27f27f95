// Bytes of a streamed chat completion -> its events. Knows server-sent events and OpenAI's chunks, nothing of React.

export interface Usage {
  prompt_tokens: number;
  completion_tokens: number;
  prompt_tokens_details?: { cached_tokens?: number } | null;
}

/** What one event of the stream adds to the answer. */
export type ChatEvent =
  | { kind: "delta"; id: string | null; text: string; reasoning: string; finish: string | null }
  | { kind: "usage"; usage: Usage }
  | { kind: "error"; message: string; code: string | null }
  | { kind: "done" };

interface Chunk {
  id?: unknown;
  choices?: { delta?: Record<string, unknown> | null; finish_reason?: string | null }[] | null;
  usage?: Usage | null;
  error?: { message?: unknown; code?: unknown } | string | null;
}

const END = "[DONE]";
/** Letters of an event that is no chunk, for the reader to see what came instead. */
const MOST_TOLD = 300;
/** Lines end with CR LF, LF or CR alone. */
const LINE_END = /\r\n|\n|\r/;

/** The events in order. It ends with `done` only when the server said so: a stream that breaks off does not. */
export async function* chatEvents(body: ReadableStream<Uint8Array>): AsyncGenerator<ChatEvent> {
  for await (const data of eventData(body)) {
    if (data === END) {
      yield { kind: "done" };
      return;
    }
    yield* eventsOf(data);
  }
}

/** The data of each server-sent event, whatever the pieces are that it came in. */
export async function* eventData(body: ReadableStream<Uint8Array>): AsyncGenerator<string> {
  let data: string[] = [];
  for await (const line of lines(body)) {
    if (line === "") {
      if (data.length) yield data.join("\n");
      data = [];
    } else if (line.startsWith("data:")) {
      data.push(line.slice(line.startsWith("data: ") ? 6 : 5));
    }
    // Other fields and comments, which keep the connection alive, say nothing to us.
  }
  // The last event may lack its empty line.
  if (data.length) yield data.join("\n");
}

async function* lines(body: ReadableStream<Uint8Array>): AsyncGenerator<string> {
  const reader = body.getReader();
  // One decoder for all pieces: a letter may be cut in two.
  const decoder = new TextDecoder();
  let rest = "";
  try {
    for (;;) {
      const { done, value } = await reader.read();
      rest += done ? decoder.decode() : decoder.decode(value, { stream: true });
      // A CR at the end may be half of a CR LF.
      const held = !done && rest.endsWith("\r") ? "\r" : "";
      const found = (held ? rest.slice(0, -1) : rest).split(LINE_END);
      rest = held ? `${found.pop()}${held}` : (found.pop() ?? "");
      yield* found;
      if (done) {
        if (rest) yield rest;
        return;
      }
    }
  } finally {
    // Also when the reader of the events left early.
    reader.cancel().catch(() => {});
  }
}

function* eventsOf(data: string): Generator<ChatEvent> {
  const chunk = chunkOf(data);
  if (chunk === null) {
    yield { kind: "error", message: data.slice(0, MOST_TOLD), code: null };
    return;
  }
  if (chunk.error) {
    yield errorOf(chunk.error);
    return;
  }
  const choice = chunk.choices?.[0];
  if (choice) {
    const delta = choice.delta ?? {};
    yield {
      kind: "delta",
      id: typeof chunk.id === "string" ? chunk.id : null,
      text: textOf(delta.content) + textOf(delta.refusal),
      reasoning: textOf(delta.reasoning_content ?? delta.reasoning),
      finish: choice.finish_reason ?? null,
    };
  }
  if (chunk.usage) yield { kind: "usage", usage: chunk.usage };
}

function chunkOf(data: string): Chunk | null {
  try {
    const found: unknown = JSON.parse(data);
    return found && typeof found === "object" ? found : null;
  } catch {
    return null;
  }
}

function errorOf(error: NonNullable<Chunk["error"]>): ChatEvent {
  if (typeof error === "string") return { kind: "error", message: error, code: null };
  const message = typeof error.message === "string" ? error.message : JSON.stringify(error);
  return { kind: "error", message, code: typeof error.code === "string" ? error.code : null };
}

const textOf = (value: unknown): string => (typeof value === "string" ? value : "");
