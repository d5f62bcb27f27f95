import { useQuery } from "@tanstack/react-query";
import { useState } from "react";
import { useSearchParams } from "wouter";
import { get, path } from "../../api/http";
import type { Deployment, List } from "../../api/types";
import { useText } from "../../i18n";
import { Button, ErrorNote, Page, Select, Waiting } from "../../ui";
import { Bill } from "./bill";
import { DeleteDeployment } from "./delete_deployment";
import DeploySomething from "./deploy_something";
import { DeploymentCard } from "./deployment_card";
import styles from "./deployments.module.css";
import { NoDeployments } from "./no_deployments";

interface Deployments extends List<Deployment> {
  window: { since: number; until: number };
}

const WINDOWS = ["1", "7", "30"] as const;
type Days = (typeof WINDOWS)[number];
const DAY = 86_400;
const LOOK_MS = 10_000;
const LOOK_CLOSELY_MS = 1000;

/** The names that answer: whether they do, what for, how quickly, and what each costs. */
export default function DeploymentsPage() {
  const t = useText();
  const [search, setSearch] = useSearchParams();
  const [deploying, setDeploying] = useState<string | true | null>(search.get("deploy"));
  const [leaving, setLeaving] = useState<Deployment | null>(null);
  const days = WINDOWS.find((one) => one === search.get("days")) ?? "30";
  const found = useDeployments(days);
  const chooseWindow = (chosen: string) =>
    setSearch((before) => ({ ...Object.fromEntries(before), days: chosen }), { replace: true });
  const closeDialog = () => {
    setDeploying(null);
    setSearch((before) => withoutDeploy(before), { replace: true });
  };
  const all = newestFirst(found.data?.data ?? []);

  return (
    <Page
      title={t("deployments.title")}
      text={t("deployments.text")}
      actions={
        <>
          <Select
            bare
            label={t("deployments.window")}
            value={days}
            choices={WINDOWS.map((value) => ({ value, label: t(`deployments.window_${value}`) }))}
            onChange={(event) => chooseWindow(event.target.value)}
          />
          <Button kind="primary" icon="plus" onClick={() => setDeploying(true)}>
            {t("deployments.deploy")}
          </Button>
        </>
      }
    >
      {found.error && <ErrorNote error={found.error} onRetry={() => found.refetch()} />}
      {found.isPending && !found.error && <Waiting />}
      {found.data && all.length === 0 && <NoDeployments onDeploy={() => setDeploying(true)} />}
      {found.data && all.length > 0 && (
        <>
          <Bill deployments={all} days={Number(days)} />
          <ul className={styles.list} aria-label={t("deployments.title")}>
            {all.map((one) => (
              <li key={one.name}>
                <DeploymentCard
                  deployment={one}
                  window={found.data.window}
                  isNamed={one.name === search.get("name")}
                  onDelete={() => setLeaving(one)}
                />
              </li>
            ))}
          </ul>
        </>
      )}
      {deploying && <DeploySomething model={deploying === true ? null : deploying} onClose={closeDialog} />}
      {leaving && <DeleteDeployment deployment={leaving} onClose={() => setLeaving(null)} />}
    </Page>
  );
}

function useDeployments(days: Days) {
  return useQuery({
    queryKey: ["deployments", "window", days],
    queryFn: ({ signal }) => {
      const since = Math.floor(Date.now() / 1000) - Number(days) * DAY;
      return get<Deployments>(path("/v1/stillroom/deployments", { since }), signal);
    },
    placeholderData: (before) => before,
    refetchInterval: ({ state }) => {
      const moves = state.data?.data.some((one) => one.state === "Creating" || one.state === "Deleting");
      return moves ? LOOK_CLOSELY_MS : LOOK_MS;
    },
  });
}

function newestFirst(deployments: Deployment[]): Deployment[] {
  return [...deployments].sort((one, other) => other.created_at - one.created_at);
}

function withoutDeploy(search: URLSearchParams): URLSearchParams {
  const rest = new URLSearchParams(search);
  rest.delete("deploy");
  return rest;
}
