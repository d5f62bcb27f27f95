// How the portal talks to the API: same origin, session cookie, OpenAI's error objects.

/** What the server said was wrong; `status` 0 means that it could not be reached at all. */
export class ApiError extends Error {
  constructor(
    message: string,
    readonly status: number,
    readonly code: string | null = null,
    readonly param: string | null = null,
  ) {
    super(message);
    this.name = "ApiError";
  }

  /** Whether trying again may help without anybody changing anything. */
  get passing(): boolean {
    return this.away || this.status === 429;
  }

  /** Whether the same question would be refused again, whenever it is asked. */
  get lasting(): boolean {
    return [400, 404, 422].includes(this.status);
  }

  /** Whether the project's budget is spent, which somebody may raise on the Usage page. */
  get overBudget(): boolean {
    return this.code === "insufficient_quota";
  }

  /** Whether the server is not there or not ready, as it says itself or what stands before it does. */
  get away(): boolean {
    return [0, 502, 503, 504].includes(this.status);
  }
}

type Query = Record<string, string | number | boolean | null | undefined>;

/** `/v1/...` with a query; entries that are null, undefined or empty are left out. */
export function path(base: string, query: Query = {}): string {
  const pairs = Object.entries(query)
    .filter(([, value]) => value !== null && value !== undefined && value !== "")
    .map(([name, value]) => [name, String(value)]);
  const text = new URLSearchParams(pairs as string[][]).toString();
  return text ? `${base}?${text}` : base;
}

/** Below this path are deployments, in the form of Azure's resource manager. */
export const ACCOUNT =
  "/subscriptions/local/resourceGroups/local/providers/Microsoft.CognitiveServices/accounts/local/deployments";
export const ARM_VERSION = "2025-09-01";

export const get = <T>(where: string, signal?: AbortSignal): Promise<T> => ask<T>("GET", where, undefined, signal);
export const post = <T>(where: string, body: unknown = {}, signal?: AbortSignal): Promise<T> =>
  ask<T>("POST", where, body, signal);
export const put = <T>(where: string, body: unknown): Promise<T> => ask<T>("PUT", where, body);
export const remove = <T>(where: string): Promise<T> => ask<T>("DELETE", where);

/** Uploads a form, such as a file. */
export async function upload<T>(where: string, form: FormData): Promise<T> {
  return read<T>(await reach(where, { method: "POST", body: form }));
}

/** An answer whose body is read as it comes, such as a stream of events. */
export async function open(where: string, body: unknown, signal?: AbortSignal): Promise<Response> {
  const answer = await reach(where, withBody("POST", body, signal));
  if (!answer.ok) throw await refusal(answer);
  return answer;
}

async function ask<T>(method: string, where: string, body?: unknown, signal?: AbortSignal): Promise<T> {
  return read<T>(await reach(where, withBody(method, body, signal)));
}

function withBody(method: string, body: unknown, signal?: AbortSignal): RequestInit {
  const asked: RequestInit = { method, ...(signal ? { signal } : {}) };
  if (body === undefined) return asked;
  return { ...asked, headers: { "content-type": "application/json" }, body: JSON.stringify(body) };
}

async function reach(where: string, asked: RequestInit): Promise<Response> {
  try {
    return await fetch(where, { credentials: "same-origin", cache: "no-store", ...asked });
  } catch (error) {
    if (error instanceof DOMException && error.name === "AbortError") throw error;
    throw new ApiError("", 0, "unreachable");
  }
}

async function read<T>(answer: Response): Promise<T> {
  if (!answer.ok) throw await refusal(answer);
  if (answer.status === 204) return undefined as T;
  const kind = answer.headers.get("content-type") ?? "";
  return (kind.includes("json") ? await answer.json() : await answer.text()) as T;
}

async function refusal(answer: Response): Promise<ApiError> {
  const text = await answer.text();
  try {
    const { error } = JSON.parse(text) as {
      error: { message?: string; code?: string | null; param?: string | null };
    };
    return new ApiError(error.message ?? text, answer.status, error.code ?? null, error.param ?? null);
  } catch {
    return new ApiError(text.slice(0, 300) || answer.statusText, answer.status);
  }
}
