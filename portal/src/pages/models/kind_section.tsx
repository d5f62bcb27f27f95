import { type MouseEvent, useId } from "react";
import { Link } from "wouter";
import type { Model } from "../../api/types";
import { useText } from "../../i18n";
import {
  Badge,
  ButtonLink,
  type Column,
  copy,
  Empty,
  IconButton,
  Snippet,
  Table,
  useFormat,
  useToast,
  When,
} from "../../ui";
import { ModelActions } from "./model_actions";
import styles from "./models.module.css";

interface KindSectionProps {
  kind: Model["kind"];
  models: Model[];
  /** The model that answers under a name, for names that are deployments. */
  standIns: Map<string, string>;
  onDeploy: (model: Model) => void;
  onDelete: (model: Model) => void;
}

export function KindSection({ kind, models, standIns, onDeploy, onDelete }: KindSectionProps) {
  const t = useText();
  const heading = useId();
  const columns = useColumns({ kind, standIns, onDeploy, onDelete });
  if (kind === "checkpoint" && models.length === 0) return null;
  return (
    <section className={styles.section} aria-labelledby={heading}>
      <div>
        <h2 id={heading}>{t(`models.kind_${kind}`)}</h2>
        <p className="small quiet">{t(`models.about_${kind}`)}</p>
      </div>
      {models.length > 0 ? (
        <Table label={t(`models.kind_${kind}`)} columns={columns} rows={models} rowKey={(model) => model.name} />
      ) : (
        <NoModels kind={kind} />
      )}
    </section>
  );
}

function useColumns({ kind, standIns, onDeploy, onDelete }: Omit<KindSectionProps, "models">) {
  const t = useText();
  const { bytes } = useFormat();
  const isTuned = kind === "fine_tuned" || kind === "checkpoint";
  const name: Column<Model> = {
    key: "name",
    header: t("models.name"),
    wide: true,
    cell: (model) => <Name model={model} standIn={standIns.get(model.name)} />,
  };
  const tuned: Column<Model>[] = [
    { key: "size", header: t("models.size"), align: "end", cell: (model) => bytes(model.bytes) },
    {
      key: "created",
      header: t("models.created"),
      cell: ({ created_at }) => created_at && <When seconds={created_at} />,
    },
  ];
  const rest: Column<Model>[] = [
    { key: "deployments", header: t("models.deployments"), cell: (model) => <Deployments names={model.deployments} /> },
    { key: "price", header: t("models.price"), cell: (model) => <Price model={model} /> },
    {
      key: "actions",
      header: t("models.actions"),
      wide: true,
      align: "end",
      cell: (model) => (
        <ModelActions
          model={model}
          onDeploy={() => onDeploy(model)}
          onDelete={isTuned ? () => onDelete(model) : null}
        />
      ),
    },
  ];
  return [name, ...(isTuned ? tuned : []), ...rest];
}

function Name({ model, standIn }: { model: Model; standIn: string | undefined }) {
  const t = useText();
  return (
    <div className={styles.name}>
      <span className={styles.copied}>
        <span className="said mono">{model.name}</span>
        <CopyName name={model.name} />
      </span>
      {standIn && standIn !== model.name && (
        <span className="row small">
          <Badge tone="warn">
            <Link href={`/deployments?name=${encodeURIComponent(model.name)}`}>{t("models.stand_in")}</Link>
          </Badge>
          <span className="quiet said">{t("models.stand_in_of", { model: standIn })}</span>
        </span>
      )}
      {(model.base || model.job) && (
        <span className="row small quiet">
          {model.base && <span>{t("models.of_base", { base: model.base })}</span>}
          {model.job && <Link href={`/jobs/${encodeURIComponent(model.job)}`}>{t("models.job")}</Link>}
        </span>
      )}
    </div>
  );
}

function CopyName({ name }: { name: string }) {
  const t = useText();
  const toast = useToast();
  const take = async (event: MouseEvent<HTMLElement>) => {
    await copy(name, event.currentTarget);
    toast({ message: t("models.name_copied", { name }), seconds: 3 });
  };
  return <IconButton icon="copy" label={t("models.copy_name", { name })} onClick={take} />;
}

function Deployments({ names }: { names: string[] }) {
  if (!names.length) return <span className="quiet">–</span>;
  return (
    <span className={styles.lines}>
      {names.map((name) => (
        <Link key={name} href={`/deployments?name=${encodeURIComponent(name)}`} className="said">
          {name}
        </Link>
      ))}
    </span>
  );
}

/** For a million tokens; what is nothing is not said. */
function Price({ model }: { model: Model }) {
  const t = useText();
  const { usd } = useFormat();
  const { input, output, training, usd_per_hosting_hour: hour } = model.price;
  if (!input && !output && !training && !hour) return <span className="quiet">{t("models.no_price")}</span>;
  return (
    <span className={styles.lines}>
      <span>{t("models.price_tokens", { input: usd(input), output: usd(output) })}</span>
      {training > 0 && <span>{t("models.price_training", { price: usd(training) })}</span>}
      {hour > 0 && <span>{t("models.price_hour", { price: usd(hour) })}</span>}
    </span>
  );
}

const CONFIGURED = {
  teacher: `# stillroom.toml
[teachers."gpt-4o"]
base_url = "https://api.openai.com/v1"
api_key = "env:OPENAI_API_KEY"
price = { input = 2.50, output = 10.00 }`,
  student_base: `# stillroom.toml
[students."my-base"]
path = "/path/to/a/hugging-face/model"
price = { input = 0.05, output = 0.20, training = 0.30 }`,
};

function NoModels({ kind }: { kind: Model["kind"] }) {
  const t = useText();
  const code = kind === "teacher" || kind === "student_base" ? CONFIGURED[kind] : null;
  return (
    <Empty title={t(`models.none_${kind}`)}>
      {code && <Snippet code={code} label={t("models.configuration", { kind: t(`models.kind_${kind}`) })} />}
      {kind === "fine_tuned" && (
        <div>
          <ButtonLink to="/distill" icon="distill" kind="primary">
            {t("models.distill")}
          </ButtonLink>
        </div>
      )}
    </Empty>
  );
}
