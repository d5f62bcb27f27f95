// Calls as text to paste: in a shell, or in a program with the official SDK. The key is never in them.

import type { CompletionDetail } from "../../api/types";

type Json = unknown;

/** What the SDK's `create` takes by name; anything else goes in `extra_body`, which is sent the same. */
const BY_NAME = new Set(
  (
    "audio frequency_penalty function_call functions logit_bias logprobs max_completion_tokens max_tokens messages " +
    "metadata modalities model n parallel_tool_calls prediction presence_penalty reasoning_effort response_format " +
    "seed service_tier stop store stream stream_options temperature tool_choice tools top_logprobs top_p user"
  ).split(" "),
);

/** Characters that are not seen, or that turn the direction of what is: written out, so that one sees them. */
const UNSEEN = /[\u007f-\u009f\u00ad\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb]/g;

/** The body that repeats a stored call: what was sent, to the model that was called, to be stored alike. */
export function bodyOf({ model, metadata, request }: CompletionDetail): Record<string, Json> {
  const stored = { store: true, ...(Object.keys(metadata).length ? { metadata } : {}) };
  const { messages, ...others } = request;
  return { model, ...others, ...stored, messages };
}

/** The body comes by a here-document, whose quoted word keeps the shell from reading anything in it. */
export function curlOf(origin: string, body: Record<string, Json>): string {
  return [
    `curl ${body.stream === true ? "-N " : ""}${origin}/v1/chat/completions \\`,
    '  -H "Authorization: Bearer $OPENAI_API_KEY" \\',
    '  -H "Content-Type: application/json" \\',
    "  --data-binary @- <<'JSON'",
    visible(JSON.stringify(body, null, 2)),
    "JSON",
  ].join("\n");
}

export function pythonOf(origin: string, body: Record<string, Json>): string {
  const named = Object.entries(body).filter(([name]) => BY_NAME.has(name));
  const others = Object.entries(body).filter(([name]) => !BY_NAME.has(name));
  const given = [
    ...named.map(([name, value]) => `    ${name}=${python(value, 4)},`),
    ...(others.length ? [`    extra_body=${python(Object.fromEntries(others), 4)},`] : []),
  ];
  return [
    "from openai import OpenAI",
    "",
    `client = OpenAI(base_url=${python(`${origin}/v1`)})  # OPENAI_API_KEY is read from the environment`,
    `${body.stream === true ? "chunks" : "completion"} = client.chat.completions.create(`,
    ...given,
    ")",
    ...(body.stream === true
      ? [
          "for chunk in chunks:",
          "    if chunk.choices:",
          '        print(chunk.choices[0].delta.content or "", end="", flush=True)',
        ]
      : ["print(completion.choices[0].message.content)"]),
  ].join("\n");
}

/** A JSON value as Python writes it. */
export function python(value: Json, indent = 0): string {
  const inner = " ".repeat(indent + 4);
  const outer = " ".repeat(indent);
  if (value === null || value === undefined) return "None";
  if (value === true) return "True";
  if (value === false) return "False";
  // A JSON string means the same in Python, escapes and all.
  if (typeof value !== "object") return visible(JSON.stringify(value));
  if (Array.isArray(value)) {
    if (!value.length) return "[]";
    return `[\n${value.map((one) => `${inner}${python(one, indent + 4)},\n`).join("")}${outer}]`;
  }
  const entries = Object.entries(value);
  if (!entries.length) return "{}";
  const lines = entries.map(([name, one]) => `${inner}${python(name)}: ${python(one, indent + 4)},\n`);
  return `{\n${lines.join("")}${outer}}`;
}

function visible(text: string): string {
  return text.replace(UNSEEN, (letter) => `\\u${letter.charCodeAt(0).toString(16).padStart(4, "0")}`);
}

export const STARTERS = ["python", "curl", "azure", "javascript"] as const;
export type Starter = (typeof STARTERS)[number];

/** A first call that is stored, for a reader who has none yet. */
export function starterOf(starter: Starter, origin: string, model: string): string {
  const metadata = { task: "tickets" };
  const messages = [{ role: "user", content: "The app closes by itself when I open a photo. Bug or question?" }];
  const body = { model, store: true, metadata, messages };
  const called = python(messages, 4);
  const create = [
    "completion = client.chat.completions.create(",
    `    model=${python(model)},`,
    "    store=True,",
    '    metadata={"task": "tickets"},',
    `    messages=${called},`,
    ")",
    "print(completion.choices[0].message.content)",
  ];
  switch (starter) {
    case "python":
      return ["from openai import OpenAI", "", `client = OpenAI(base_url="${origin}/v1")`, ...create].join("\n");
    case "azure":
      return [
        "import os",
        "from openai import AzureOpenAI",
        "",
        "client = AzureOpenAI(",
        `    azure_endpoint="${origin}",`,
        '    api_key=os.environ["OPENAI_API_KEY"],',
        '    api_version="2024-10-01-preview",',
        ")",
        ...create,
      ].join("\n");
    case "curl":
      return curlOf(origin, body);
    case "javascript":
      return [
        'import OpenAI from "openai";',
        "",
        `const client = new OpenAI({ baseURL: "${origin}/v1" });`,
        `const completion = await client.chat.completions.create(${visible(JSON.stringify(body, null, 2))});`,
        "console.log(completion.choices[0].message.content);",
      ].join("\n");
  }
}
