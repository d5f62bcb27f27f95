// The way through, in five steps: what is done, and the next thing to do.

import { useQuery } from "@tanstack/react-query";
import { Link } from "wouter";
import { get, path } from "../../api/http";
import { ALL_MODELS } from "../../api/shared";
import type { List, Overview, StoredFile } from "../../api/types";
import { useText } from "../../i18n";
import { ButtonLink, Icon, type IconName } from "../../ui";
import styles from "./overview.module.css";

interface Step {
  name: "capture" | "select" | "train" | "deploy" | "prove";
  icon: IconName;
  to: string;
}

const STEPS: Step[] = [
  { name: "capture", icon: "completions", to: "/completions" },
  { name: "select", icon: "filter", to: "/completions" },
  { name: "train", icon: "distill", to: "/distill" },
  { name: "deploy", icon: "deployments", to: "/deployments" },
  { name: "prove", icon: "evals", to: "/evals?compare=new" },
];

/** `isNew`: how to store the first completion is told above. */
export function Steps({ overview, isNew = false }: { overview: Overview; isNew?: boolean }) {
  const t = useText();
  const done = useDone(overview);
  if (!done) return null;
  const next = STEPS.find((step) => !done.has(step.name))?.name;
  return (
    <section className="card stack">
      <h2>{t("overview.steps")}</h2>
      <ol className={styles.steps} data-done={!next}>
        {STEPS.map((step, at) => (
          <li key={step.name} data-state={done.has(step.name) ? "done" : step.name === next ? "next" : "later"}>
            <span className={styles.mark}>
              <Icon name={done.has(step.name) ? "check" : step.icon} />
            </span>
            <h3>
              <Link href={step.to} className={styles.link}>
                {t("overview.step", { number: at + 1, name: t(`overview.step_${step.name}`) })}
              </Link>
            </h3>
            {next && <p className="small quiet">{t(`overview.step_${step.name}_text`)}</p>}
            {done.has(step.name) && <span className={styles.done}>{t("overview.done")}</span>}
            {step.name === next && !isNew && (
              <ButtonLink kind="primary" to={step.to}>
                {t(`overview.step_${step.name}_deed`)}
              </ButtonLink>
            )}
          </li>
        ))}
      </ol>
    </section>
  );
}

/** The steps that are done; null until that is known. */
function useDone(overview: Overview): Set<Step["name"]> | null {
  const models = useQuery(ALL_MODELS);
  const files = useQuery({
    queryKey: ["files", "training", 1],
    queryFn: ({ signal }) => get<List<StoredFile>>(path("/v1/files", { purpose: "fine-tune", limit: 1 }), signal),
  });
  if (!models.data || !files.data) return null;
  const students = models.data.data.filter((model) => model.kind !== "teacher");
  const trained = students.some((model) => model.kind === "fine_tuned");
  const done = new Set<Step["name"]>();
  if (overview.stored > 0) done.add("capture");
  if (trained || overview.jobs_running > 0 || files.data.data.length > 0) done.add("select");
  if (trained) done.add("train");
  if (students.some((model) => model.deployments.length > 0)) done.add("deploy");
  if (overview.agreement) done.add("prove");
  return done;
}
