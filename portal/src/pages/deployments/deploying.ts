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
const SUFFIX = 3;
export const LONGEST = 64;
const NAME = new RegExp(`^[A-Za-z0-9.:_-]{1,${LONGEST}}$`);

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

/** As the server has them: what needs no escaping in an address. */
export const isName = (name: string): boolean => NAME.test(name) && name !== "." && name !== "..";

/** A name to begin with: what `ft:base:org:suffix:id` was called; none of those that are taken. */
export function suggestedName(model: string, taken: readonly string[]): string {
  const called = model.startsWith(FINE_TUNED) ? model.split(":")[SUFFIX] : model;
  const stem = (called || "student").replaceAll(/[^A-Za-z0-9._-]+/g, "-").slice(0, LONGEST - 4);
  if (!taken.includes(stem)) return stem;
  let number = 2;
  while (taken.includes(`${stem}-${number}`)) number += 1;
  return `${stem}-${number}`;
}
