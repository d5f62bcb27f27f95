import { useQuery } from "@tanstack/react-query";
import { useState } from "react";
import { get, path } from "../../api/http";
import type { Deployment, List } from "../../api/types";
import { useText } from "../../i18n";
import { Button, DAY_SECONDS, ErrorNote, Page, Select, useAddress, Waiting } from "../../ui";
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
const LOOK_MS = 10_000;
const LOOK_CLOSELY_MS = 1000;

/** The names that answer: whether they do, what for, how quickly, and what each costs. */
export default function DeploymentsPage() {
  const t = useText();
  const { address, set } = useAddress();
  const [deploying, setDeploying] = useState<string | true | null>(address.get("deploy"));
  const [leaving, setLeaving] = useState<Deployment | null>(null);
  const days = WINDOWS.find((one) => one === address.get("days")) ?? "30";
  const found = useDeployments(days);
  const closeDialog = () => {
    setDeploying(null);
    set({ deploy: null });
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
            onChange={(event) => set({ days: event.target.value })}
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
                  isNamed={one.name === address.get("name")}
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
      const since = Math.floor(Date.now() / 1000) - Number(days) * DAY_SECONDS;
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
