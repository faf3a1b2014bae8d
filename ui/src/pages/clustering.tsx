/** The members of the cluster. */
import { useApi } from "../api/client";
import type { Peers } from "../api/types";
import { ErrorNotice, Loading } from "../parts/notice";
import type { PageProps } from "./index";

const EVERY_MS = 10_000;

export function ClusteringPage(_: PageProps) {
  const { data, error, reload } = useApi<Peers[]>("peers", {}, EVERY_MS);
  return (
    <div class="page">
      <div class="page-head">
        <h1>Clustering</h1>
        {data !== null && <span class="muted">{data.length === 1 ? "This node works alone" : `${data.length} nodes`}</span>}
      </div>
      {error !== null && <ErrorNotice error={error} what="the nodes" retry={reload} />}
      {data === null && error === null && <Loading what="the nodes" />}
      {data !== null && (
        <div class="card card-scroll">
          <table class="table">
            <thead>
              <tr>
                <th>Node</th>
                <th>Address</th>
                <th>State</th>
                <th>This node</th>
              </tr>
            </thead>
            <tbody>
              {data.map((peer) => (
                <tr key={peer.name}>
                  <td>
                    <strong>{peer.name}</strong>
                  </td>
                  <td class="mono">{peer.addr}</td>
                  <td>{peer.state}</td>
                  <td>{peer.isSelf ? "yes" : ""}</td>
                </tr>
              ))}
            </tbody>
          </table>
        </div>
      )}
    </div>
  );
}
