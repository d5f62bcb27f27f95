// Pointing a name at a model, in the form of Azure's resource manager, and watching it until it answers.

import { ACCOUNT, ARM_VERSION, get, path, put } from "../../api/http";

/** A deployment as the resource manager shows it. */
export interface ArmDeployment {
  name: string;
  properties: {
    model: { name: string };
    provisioningState: "Creating" | "Succeeded" | "Failed" | "Deleting";
    provisioningError?: { code: string; message: string | null };
  };
}

export const HOURS_A_MONTH = 730;
const FINE_TUNED = "ft:";
const LONGEST = 64;

export function addressOf(name: string): string {
  return path(`${ACCOUNT}/${encodeURIComponent(name)}`, { "api-version": ARM_VERSION });
}

export const deploymentOf = (name: string, signal?: AbortSignal) => get<ArmDeployment>(addressOf(name), signal);

export async function allDeployments(signal?: AbortSignal): Promise<ArmDeployment[]> {
  return (await get<{ value: ArmDeployment[] }>(path(ACCOUNT, { "api-version": ARM_VERSION }), signal)).value;
}

export function deploy(name: string, model: string): Promise<ArmDeployment> {
  return put<ArmDeployment>(addressOf(name), {
    sku: { name: "Standard", capacity: 1 },
    properties: { model: { format: "OpenAI", name: model, version: "1" } },
  });
}

/** A name to begin with: what `ft:base:org:suffix:id` was called, else its base, which no other deployment has. */
export function suggestedName(model: string, taken: readonly string[]): string {
  const [base = "student", , suffix] = model.startsWith(FINE_TUNED)
    ? model.slice(FINE_TUNED.length).split(":")
    : [model];
  const stem = (suffix || base).replaceAll("/", "-").slice(0, LONGEST - 4);
  if (!taken.includes(stem)) return stem;
  let number = 2;
  while (taken.includes(`${stem}-${number}`)) number += 1;
  return `${stem}-${number}`;
}
