// What the job has made that can be deployed: the final model, and the checkpoints on the way.

import { useQuery } from "@tanstack/react-query";
import { Link } from "wouter";
import type { Checkpoint, Job } from "../../api/types";
import { useText } from "../../i18n";
import { Badge, Button, ErrorNote, useFormat } from "../../ui";
import { allDeployments } from "../deployments/deploying";
import { useCheckpoints } from "./asking";
import styles from "./jobs.module.css";
import { loss } from "./metrics";
import { hasEnded, methodOf } from "./state";

export function Made({ one, onDeploy }: { one: Job; onDeploy: (model: string) => void }) {
  const t = useText();
  const { job } = one;
  const checkpoints = useCheckpoints(one);
  const found = checkpoints.data?.data ?? [];
  const arePairs = methodOf(job) === "dpo";
  return (
    <section className="card stack" aria-labelledby="made">
      <h2 id="made">{t("jobs.made")}</h2>
      {checkpoints.error && !checkpoints.data && <ErrorNote error={checkpoints.error} onRetry={checkpoints.refetch} />}
      <div>
        {job.fine_tuned_model && (
          <Model
            name={job.fine_tuned_model}
            title={t("jobs.final_model")}
            figures={null}
            arePairs={arePairs}
            onDeploy={onDeploy}
          />
        )}
        {found.map((checkpoint) => (
          <Model
            key={checkpoint.id}
            name={checkpoint.fine_tuned_model_checkpoint}
            title={t("jobs.checkpoint", { step: checkpoint.step_number })}
            figures={checkpoint.metrics}
            arePairs={arePairs}
            onDeploy={onDeploy}
          />
        ))}
      </div>
      {!job.fine_tuned_model && found.length === 0 && (
        <p className="quiet">{t(hasEnded(job) ? "jobs.no_models" : "jobs.no_checkpoints")}</p>
      )}
      {found.length > 0 && <p className="small quiet">{t("jobs.checkpoints_kept")}</p>}
    </section>
  );
}

interface ModelProps {
  name: string;
  title: string;
  figures: Checkpoint["metrics"] | null;
  /** Whether the job learned from pairs, of which the accuracy says something else. */
  arePairs: boolean;
  onDeploy: (model: string) => void;
}

function Model({ name, title, figures, arePairs, onDeploy }: ModelProps) {
  const t = useText();
  const deployments = useQuery({
    queryKey: ["deployments", "arm"],
    queryFn: ({ signal }) => allDeployments(signal),
  });
  const here = deployments.data?.filter((one) => one.properties.model.name === name) ?? [];
  return (
    <div className={styles.model}>
      <div className={styles.name}>
        <strong>{title}</strong>
        <span className="mono small quiet said">{name}</span>
        {figures && <Figures figures={figures} arePairs={arePairs} />}
        {here.length > 0 && (
          <span className="row small">
            {here.map((one) => (
              <Badge key={one.name} tone="student">
                {t("jobs.deployed_as")}{" "}
                <Link href={`/deployments?name=${encodeURIComponent(one.name)}`}>{one.name}</Link>
              </Badge>
            ))}
          </span>
        )}
      </div>
      <Button icon="deployments" aria-label={t("jobs.deploy_this", { name: title })} onClick={() => onDeploy(name)}>
        {t("jobs.deploy")}
      </Button>
    </div>
  );
}

/** The figures that a checkpoint has; over the whole validation file where it was gone through whole. */
function Figures({ figures, arePairs }: { figures: Checkpoint["metrics"]; arePairs: boolean }) {
  const t = useText();
  const { share } = useFormat();
  const isWhole = figures.full_valid_loss !== undefined;
  const training = [figures.train_loss, figures.train_mean_token_accuracy] as const;
  const validation = isWhole
    ? ([figures.full_valid_loss, figures.full_valid_mean_token_accuracy] as const)
    : ([figures.valid_loss, figures.valid_mean_token_accuracy] as const);
  const of = (part: "train" | "valid", [lost, accuracy]: readonly [number | undefined, number | undefined]) =>
    [
      lost !== undefined && `${t(`jobs.${part}_loss`)} ${loss(lost)}`,
      accuracy !== undefined && `${t(arePairs ? "jobs.preferred_share" : `jobs.${part}_accuracy`)} ${share(accuracy)}`,
    ]
      .filter(Boolean)
      .join(" · ");
  return (
    <>
      <span className="small number">{of("train", training)}</span>
      {validation[0] !== undefined && (
        <span className="small number">
          {of("valid", validation)} {isWhole && t("jobs.whole_file")}
        </span>
      )}
    </>
  );
}
