import { useMutation, useQuery, useQueryClient } from "@tanstack/react-query";
import { type FormEvent, useEffect, useId, useState } from "react";
import { ALL_MODELS } from "../../api/shared";
import type { Model } from "../../api/types";
import { useText } from "../../i18n";
import { Button, ButtonLink, Check, Dialog, ErrorNote, Note, TextInput, useFormat, Waiting } from "../../ui";
import { CallSnippet } from "./call_snippet";
import {
  type ArmDeployment,
  allDeployments,
  deploy,
  deploymentOf,
  HOURS_A_MONTH,
  isName,
  LONGEST,
  suggestedName,
} from "./deploying";

const LOOK_MS = 700;

/** Gives a model a name that answers, and stays until it does. */
export default function DeployDialog({ model, onClose }: { model: string; onClose: () => void }) {
  const t = useText();
  const client = useQueryClient();
  const form = useId();
  const there = useQuery({ queryKey: ["deployments", "arm"], queryFn: ({ signal }) => allDeployments(signal) });
  const models = useQuery(ALL_MODELS);
  const [typed, setTyped] = useState<string | null>(null);
  // The name for which the reader has said that it may answer instead of a model.
  const [agreed, setAgreed] = useState<string | null>(null);
  const known = models.data?.data ?? [];
  const taken = [...(there.data ?? []), ...known].map((one) => one.name);
  const isReady = !there.isPending && !models.isPending;
  const name = typed ?? (isReady ? suggestedName(model, taken) : "");
  const hidden = known.find((one) => one.name === name && one.name !== model);
  const mayDeploy = isReady && (!hidden || agreed === name);
  const deploying = useMutation({
    mutationFn: () => deploy(name, model),
    onSuccess: (made) => {
      client.setQueryData(["deployments", "arm", made.name], made);
      for (const key of ["deployments", "models"]) client.invalidateQueries({ queryKey: [key] });
    },
  });
  const submit = (event: FormEvent) => {
    event.preventDefault();
    if (mayDeploy && !problemOf(name) && !deploying.isPending) deploying.mutate();
  };
  if (deploying.data) return <Made made={deploying.data} onClose={onClose} />;

  const problem = typed === null ? null : problemOf(name);
  const before = there.data?.find((one) => one.name === name);
  return (
    <Dialog
      title={t("deploy.title")}
      onClose={onClose}
      actions={
        <>
          <Button onClick={onClose}>{t("common.cancel")}</Button>
          <Button kind="primary" type="submit" form={form} busy={deploying.isPending} disabled={!mayDeploy}>
            {t("deploy.deed")}
          </Button>
        </>
      }
    >
      <form id={form} onSubmit={submit} className="stack">
        <p>
          <span className="quiet">{t("deploy.model")}</span> <span className="mono said">{model}</span>
        </p>
        {/* Once its first value is known, which would else come in between what is typed. */}
        {isReady ? (
          <TextInput
            label={t("deploy.name")}
            hint={t("deploy.name_hint")}
            error={problem && t(problem)}
            maxLength={LONGEST}
            value={name}
            onChange={(event) => setTyped(event.target.value)}
            autoFocus
          />
        ) : (
          <Waiting />
        )}
        {before && (
          <Note tone="warn">
            <span className="said">{t("deploy.exists", { name, model: before.properties.model.name })}</span>
          </Note>
        )}
        {hidden && (
          <Hiding hidden={hidden} agreed={agreed === name} onAgree={(agrees) => setAgreed(agrees ? name : null)} />
        )}
        <Hosting model={model} />
        {deploying.error && <ErrorNote error={deploying.error} />}
      </form>
    </Dialog>
  );
}

function problemOf(name: string): "deploy.name_missing" | "deploy.name_wrong" | null {
  if (!name.trim()) return "deploy.name_missing";
  return isName(name) ? null : "deploy.name_wrong";
}

interface HidingProps {
  /** The model that nobody would reach under its name any more. */
  hidden: Model;
  agreed: boolean;
  onAgree: (agrees: boolean) => void;
}

/** A deployment answers before a model of its name, which must not happen by accident. */
function Hiding({ hidden, agreed, onAgree }: HidingProps) {
  const t = useText();
  const { name, kind } = hidden;
  return (
    <Note tone="warn">
      <p className="said" role="alert">
        {t(kind === "teacher" ? "deploy.hides_teacher" : "deploy.hides_model", { name })}
      </p>
      <Check
        label={t("deploy.hides_agreed", { name })}
        checked={agreed}
        onChange={(event) => onAgree(event.target.checked)}
      />
    </Note>
  );
}

/** What it will cost to have it loaded, before it is. */
function Hosting({ model }: { model: string }) {
  const t = useText();
  const { usd } = useFormat();
  const models = useQuery(ALL_MODELS);
  const hour = models.data?.data.find((one) => one.name === model)?.price.usd_per_hosting_hour;
  if (hour === undefined) return null;
  const text = hour
    ? t("deploy.hosting", { hour: usd(hour), month: usd(hour * HOURS_A_MONTH) })
    : t("deploy.hosting_free");
  return <p className="small quiet">{text}</p>;
}

/** The deployment on its way, and how to call it when it is there. */
function Made({ made, onClose }: { made: ArmDeployment; onClose: () => void }) {
  const t = useText();
  const client = useQueryClient();
  const { name } = made;
  const watched = useQuery({
    queryKey: ["deployments", "arm", name],
    queryFn: ({ signal }) => deploymentOf(name, signal),
    initialData: made,
    refetchInterval: ({ state }) => (state.data?.properties.provisioningState === "Creating" ? LOOK_MS : false),
  });
  const { provisioningState: state, provisioningError: error } = watched.data.properties;
  const ready = state === "Succeeded";
  useEffect(() => {
    // The lists on the page behind show how it ended, too.
    if (state !== "Creating") client.invalidateQueries({ queryKey: ["deployments"] });
  }, [client, state]);
  return (
    <Dialog
      title={t("deploy.title")}
      onClose={onClose}
      actions={
        <>
          <Button onClick={onClose} autoFocus>
            {t("common.close")}
          </Button>
          {ready && (
            <ButtonLink kind="primary" icon="playground" to={`/playground?model=${encodeURIComponent(name)}`}>
              {t("deploy.playground")}
            </ButtonLink>
          )}
        </>
      }
    >
      {state === "Creating" && <Waiting text={t("deploy.loading_long", { name })} />}
      {state === "Failed" && (
        <Note tone="bad">
          <span className="said">
            {t("deploy.failed", { name, reason: error?.message ?? t("deploy.failed_unknown") })}
          </span>
        </Note>
      )}
      <div role="status">{ready && <Note tone="good">{t("deploy.ready", { name })}</Note>}</div>
      {ready && <CallSnippet name={name} />}
    </Dialog>
  );
}
